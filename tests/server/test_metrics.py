from __future__ import annotations

import math

from llmling.server.metrics import Sample, exposition


def test_samples_of_one_name_stand_together_under_one_type() -> None:
    text = exposition(
        [
            Sample("llmling_events", 2, {"status": "done"}, help="Events.\nBy status."),
            Sample("llmling_runs_total", 1.5, {"agent": 'a"b\\c\nd'}, "counter"),
            Sample("llmling_events", 1e9, {"status": "dead"}),
            Sample("llmling_odd", math.inf),
        ]
    )
    assert text.splitlines() == [
        "# HELP llmling_events Events.\\nBy status.",
        "# TYPE llmling_events gauge",
        'llmling_events{status="done"} 2',
        'llmling_events{status="dead"} 1000000000',
        "# TYPE llmling_runs_total counter",
        'llmling_runs_total{agent="a\\"b\\\\c\\nd"} 1.5',
        "# TYPE llmling_odd gauge",
        "llmling_odd +Inf",
    ]
    assert text.endswith("\n")
