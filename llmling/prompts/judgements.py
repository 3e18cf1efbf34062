"""Templates that judge what somebody has written: arguments, plans, code."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from llmling.manifest.prompts import Depth
from llmling.prompts.context import Context
from llmling.prompts.parts import Constraints, Guidance
from llmling.prompts.template import Material, ReasoningTemplate, Steps


class AboutArgument(TypedDict):
    """Arguments of `ArgumentEvaluator`."""

    argument: str
    evidence: NotRequired[Material]
    depth: NotRequired[Depth]


class ArgumentEvaluator(ReasoningTemplate):
    """Takes an argument apart into claims and reasons, and judges what carries and what does not."""

    guidance = Guidance(
        role="a fair judge of arguments who separates whether it is true from whether it follows",
        goal="show which parts of the argument carry its conclusion, and how it could be made stronger",
        rules=[
            "Read the argument in its strongest form before judging it.",
            "A bad argument may have a true conclusion; say so where it may.",
            "Judge the text, not its author.",
        ],
    )
    task = "Evaluate this argument."
    steps = Steps(
        quick=[
            "State the conclusion in one sentence, as the author would accept it.",
            "List the reasons it rests on, and mark each as supported, plausible or unsupported.",
        ],
        standard=[
            "Name the premises that are needed but not said.",
            "Point out each fallacy or unclear word by quoting the place, and say what it breaks.",
        ],
        thorough=[
            "Write the strongest version of the argument, using only what the author could grant.",
            "Write the strongest objection to that version, and the best reply to it.",
        ],
        comprehensive=[
            "Say which evidence would change the judgement, in both directions.",
            "Look for what the argument leaves out: cases, costs, people, base rates.",
            "Say how far the conclusion reaches at most, if it is narrowed to what is supported.",
        ],
        closing="Judge whether the conclusion follows: strongly, weakly or not at all.",
    )
    constraints = Constraints(
        must=["quote the words a criticism is about", "name at least one thing the argument does well"],
        must_not=["argue for or against the conclusion itself", "call a disagreement a fallacy"],
        format="headings Conclusion, Reasons, What is not said, Judgement",
    )

    def build_context(self, **arguments: Unpack[AboutArgument]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutAssumptions(TypedDict):
    """Arguments of `AssumptionAuditor`."""

    plan: str
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class AssumptionAuditor(ReasoningTemplate):
    """Finds what a plan takes for granted, and orders it by how much would fall with it."""

    guidance = Guidance(
        role="an auditor of assumptions",
        goal="bring to light what the plan takes for granted, before reality does",
        rules=[
            "An assumption is a sentence that can be false; a wish, a task or a risk is none.",
            "The assumptions nobody wrote down matter more than those somebody did.",
        ],
    )
    task = "Find the assumptions this plan rests on."
    steps = Steps(
        quick=[
            "List the assumptions as sentences that can be false, at least five, with the words they hide behind.",
            "Mark the three whose falsehood would hurt most.",
            "For each of the three, name the cheapest test.",
        ],
        standard=[
            "Look in these places: demand, ability, time, money, people's behaviour, other teams, law, technology.",
            "Place each on two scales: how certain it is, and how much of the plan falls with it.",
        ],
        thorough=[
            "Find the assumptions that depend on each other, and the one at the bottom.",
            "For each important one, say what evidence there is today and how old it is.",
            "Describe the plan's smallest version that would still work if the weakest assumption is false.",
        ],
        comprehensive=[
            "Write down what the plan assumes will not change, and what will.",
            "Ask who gains from each assumption being believed.",
            "Order the tests into a schedule that kills the plan as early as possible, if it has to die.",
        ],
        closing="Name the assumption to test first.",
    )
    constraints = Constraints(
        must=["quote or name the place in the plan each assumption stands behind"],
        must_not=["judge whether the plan is good", "list what would be true of every plan"],
        format="a table with assumption, place, certainty, what falls with it, test",
    )

    def build_context(self, **arguments: Unpack[AboutAssumptions]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutChange(TypedDict):
    """Arguments of `CodeReviewer`."""

    change: str
    purpose: NotRequired[str]
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class CodeReviewer(ReasoningTemplate):
    """Reviews a change of code for what breaks, what leaks and what the next reader will not understand."""

    guidance = Guidance(
        role="a reviewer of code who has to run it at night",
        goal="find what will break, before it does, and leave the author able to mend it without asking back",
        style="Direct and kind; about the code, never about its author.",
        rules=[
            "A finding names the line, the input that breaks it and the result.",
            "Correctness comes before security, security before clarity, clarity before taste.",
            "When nothing is wrong, say so in one line.",
        ],
    )
    task = "Review this change."
    steps = Steps(
        quick=[
            "Say in one sentence what the change does, as the code has it and not as its description has it.",
            "Look for defects: wrong results, unhandled failures, lost updates, leaked resources.",
        ],
        standard=[
            "Try the edges in thought: empty, one, many, huge, malformed, twice, at the same time, interrupted.",
            "Follow every value that comes from outside to where it is used: query, path, command, template, log.",
            "Name the test that is missing most.",
        ],
        thorough=[
            "Check what happens to callers, stored data and older versions that do not know of the change.",
            "Look at cost: work in loops, calls over the network, locks held while waiting, growth without bound.",
            "Suggest where a name, a type or a smaller function would make a whole class of mistakes impossible.",
        ],
        comprehensive=[
            "Say how it fails in production: what an operator sees, whether it can be rolled back, what is left over.",
            "Sketch a simpler design that gives the same, or say why there is none.",
            "List what was not checked, and what it would take.",
        ],
        closing="Give a verdict: accept, accept after mending, or rethink.",
    )
    constraints = Constraints(
        must=["mark each finding as defect, risk or suggestion", "show the corrected lines for each defect"],
        must_not=["comment on formatting a tool can settle", "invent functions that are not in the change"],
        format="the verdict first, then findings by weight: place, what happens, how to mend it",
    )

    def build_context(self, **arguments: Unpack[AboutChange]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)
