"""A picture of boxes and arrows from left to right that needs no font, script or file from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from llmling.manifest.root import Manifest
from llmling.planning import plan
from llmling.topology import Edge, Node, Topology, topology

_CHAR, _LINE, _PAD, _GAP, _LANE, _MARGIN = 7.4, 18, 12, 24, 90, 24
_LONGEST = 34
_TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 8 4 0 8z" fill="#57606a"/></marker>'
)
_STYLE = """
text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f24 }
.detail { fill: #57606a; font-size: 11px }
.agent { fill: #ffffff; stroke: #1f6feb; stroke-width: 1.5 }
.team { fill: #f2f6fc; stroke: #8c959f; stroke-dasharray: 5 3 }
.trigger { fill: #dafbe1; stroke: #1a7f37 }
.sink { fill: #fff8c5; stroke: #9a6700 }
.edge { fill: none; stroke: #57606a; stroke-width: 1.4; marker-end: url(#tip) }
.loose { stroke-dasharray: 4 4 }
"""


@dataclass(slots=True)
class _Box:
    node: Node
    inner: list[_Box] = field(default_factory=list["_Box"])
    x: float = 0
    y: float = 0
    width: float = 0
    height: float = 0

    @property
    def lines(self) -> list[str]:
        return [_short(text, _LONGEST) for text in (self.node.title, self.node.detail) if text]

    def measure(self) -> None:
        """Size a box by its text, and a team by its members stacked in it."""
        for box in self.inner:
            box.measure()
        text = max(len(line) for line in self.lines) * _CHAR + 2 * _PAD
        self.width = max([text, *(box.width + 2 * _PAD for box in self.inner)])
        self.height = len(self.lines) * _LINE + _PAD + sum(box.height + _PAD for box in self.inner)

    def place(self, x: float, y: float) -> None:
        """Put a box, and everything in it, to where it stays."""
        self.x, self.y = x, y
        top = y + len(self.lines) * _LINE + _PAD
        for box in self.inner:
            box.width = self.width - 2 * _PAD
            box.place(x + _PAD, top)
            top += box.height + _PAD


def picture(manifest: Manifest) -> str:
    """Return an SVG of a pool: each box stands right of those it hears from, a team holds its members."""
    return _drawn(topology(plan(manifest)))


def _drawn(shown: Topology) -> str:
    edges = shown.edges
    boxes = {node.id: _Box(node) for node in shown.nodes.values()}
    outer: dict[str, str] = {}
    for name, box in boxes.items():
        root = name
        while (team := boxes[root].node.team) is not None:
            root = team
        outer[name] = root
        if box.node.team is not None:
            boxes[box.node.team].inner.append(box)
    roots = [box for name, box in boxes.items() if outer[name] == name]
    ranks = _ranks([box.node.id for box in roots], [(outer[edge.source], outer[edge.target]) for edge in edges])
    width, height = _arrange(roots, ranks)
    body = [_shape(box) for box in roots]
    steps = [ranks[outer[edge.target]] - ranks[outer[edge.source]] for edge in edges]
    for edge, step in zip(edges, steps, strict=True):
        # Arrows that skip a column go over everything, those that lead back go under it: neither crosses a box.
        around = None if step == 1 else -_LANE / 4 if step > 1 else height + _LANE / 4
        body.append(_arrow(boxes[edge.source], boxes[edge.target], edge, around))
    above, below = (_LANE / 2 if any(found) else 0 for found in ([s > 1 for s in steps], [s < 1 for s in steps]))
    height += above + below
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 {-above:.0f} {width:.0f} {height:.0f}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<style>{_STYLE}</style>",
        f"<defs>{_TIP}</defs>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    return "\n".join([*head, *body, "</svg>"])


def _short(text: str, width: int) -> str:
    # XML has no way to hold control characters.
    flat = "".join(char if char.isprintable() else " " for char in " ".join(text[: 4 * width].split()))
    return flat if len(flat) <= width else f"{flat[: width - 3].rstrip()}..."


def _ranks(names: Sequence[str], edges: Sequence[tuple[str, str]]) -> dict[str, int]:
    """Return each name's column: one right of the furthest it hears from; edges that close a cycle do not count."""
    ahead = {name: [target for source, target in edges if source == name] for name in names}
    state: dict[str, bool] = {}
    order: list[str] = []
    kept: dict[str, list[str]] = {}
    for start in names:
        trail = [] if start in state else [(start, iter(ahead[start]))]
        if trail:
            state[start] = True
        while trail:
            name, targets = trail[-1]
            target = next(targets, None)
            if target is None:
                state[name] = False
                order.append(name)
                trail.pop()
            elif not state.get(target):
                kept.setdefault(name, []).append(target)
                if target not in state:
                    state[target] = True
                    trail.append((target, iter(ahead[target])))
    ranks = dict.fromkeys(names, 0)
    for name in reversed(order):
        for target in kept.get(name, []):
            ranks[target] = max(ranks[target], ranks[name] + 1)
    return ranks


def _arrange(roots: Sequence[_Box], ranks: dict[str, int]) -> tuple[float, float]:
    columns: list[list[_Box]] = [[] for _ in range(max(ranks.values(), default=0) + 1)]
    for box in roots:
        box.measure()
        columns[ranks[box.node.id]].append(box)
    heights = [sum(box.height + _GAP for box in column) - _GAP for column in columns]
    x: float = _MARGIN
    for column, height in zip(columns, heights, strict=True):
        y = _MARGIN + (max(heights) - height) / 2
        for box in column:
            box.place(x, y)
            y += box.height + _GAP
        x += max((box.width for box in column), default=0) + _LANE
    return x - _LANE + _MARGIN, max(heights) + 2 * _MARGIN


def _shape(box: _Box) -> str:
    radius = box.height / 2 if box.node.shape in {"trigger", "sink"} else 6
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius:.1f}"'
    whole = escape(_short(f"{box.node.title} {box.node.detail}", 1_000))
    parts = [f'<rect class="{box.node.shape}" {place}><title>{whole}</title></rect>']
    for index, text in enumerate(box.lines):
        css = ' class="detail"' if index else ""
        y = box.y + (index + 1) * _LINE
        parts.append(
            f'<text{css} x="{box.x + box.width / 2:.1f}" y="{y:.1f}" text-anchor="middle">{escape(text)}</text>'
        )
    return "\n".join([*parts, *(_shape(inner) for inner in box.inner)])


def _arrow(source: _Box, target: _Box, edge: Edge, around: float | None) -> str:
    if around is None:
        x1, y1 = source.x + source.width, source.y + source.height / 2
        x2, y2 = target.x, target.y + target.height / 2
        bend = (x2 - x1) / 2
        path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        label_y = (y1 + y2) / 2 - 6
    else:
        x1, y1 = source.x + source.width - _PAD, source.y if around < 0 else source.y + source.height
        # From above it comes down in the lane before the target's column, where no box stands.
        x2, y2 = (target.x, target.y + target.height / 2) if around < 0 else (target.x + _PAD, target.y + target.height)
        turn = x2 - _LANE if around < 0 else x2
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {around:.1f} {turn:.1f} {around:.1f} {x2:.1f} {y2:.1f}"
        label_y = (y1 + y2 + 6 * around) / 8 - 6
    parts = [f'<path class="{"edge loose" if edge.loose else "edge"}" d="{path}"/>']
    if edge.label:
        text = escape(_short(edge.label, 28))
        x = (x1 + x2) / 2
        parts.append(f'<text class="detail" x="{x:.1f}" y="{label_y:.1f}" text-anchor="middle">{text}</text>')
    return "\n".join(parts)
