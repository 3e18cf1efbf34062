"""Templates that serve readers, askers and those a plan touches."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from llmling.manifest.prompts import Depth
from llmling.prompts.context import Context
from llmling.prompts.parts import Constraints, Guidance
from llmling.prompts.template import Material, ReasoningTemplate, Steps


class AboutText(TypedDict):
    """Arguments of `BriefingWriter`."""

    text: str
    audience: NotRequired[str]
    purpose: NotRequired[str]
    depth: NotRequired[Depth]


class BriefingWriter(ReasoningTemplate):
    """Turns a long text into what one reader needs to decide or act."""

    guidance = Guidance(
        role="a writer of briefings for somebody who reads the first lines and acts on them",
        goal="give the reader what the text means for them, in the order they need it",
        style="Short sentences, plain words, figures with their unit and date.",
        rules=[
            "The conclusion stands first, its reasons after it.",
            "What the text does not say stays unsaid, or is marked as missing.",
        ],
    )
    task = "Write a briefing of this text. Without an audience given, write for a busy generalist."
    steps = Steps(
        quick=[
            "Say in one sentence what the text is and who speaks in it.",
            "Give its three most important points, most important first.",
        ],
        standard=[
            "Back each point with a figure, a date or a quotation from the text.",
            "Name what is new, and what only repeats what was known.",
        ],
        thorough=[
            "Point out contradictions within the text and claims without support.",
            "Say what the text leaves out that this reader will ask about.",
        ],
        comprehensive=[
            "Explain who gains by the text being believed, as far as it shows.",
            "List names, dates, amounts and obligations in a table, with where they stand.",
            "Draft three questions to the author.",
        ],
        closing="Say what the reader has to do or decide, and by when; or that there is nothing.",
    )
    constraints = Constraints(
        must=["keep every number exactly as the text has it"],
        must_not=["add knowledge from elsewhere", "praise or scold the text"],
        format="a bold first sentence with the conclusion, then bullets",
    )

    def build_context(self, **arguments: Unpack[AboutText]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutRequest(TypedDict):
    """Arguments of `RequirementsAnalyst`."""

    request: str
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class RequirementsAnalyst(ReasoningTemplate):
    """Turns a vague request into requirements that can be checked, and questions that have to be asked."""

    guidance = Guidance(
        role="an analyst between those who ask for something and those who will build it",
        goal="find out what is needed behind what was asked, and write it so that both sides mean the same",
        rules=[
            "A requirement is checked by a yes or a no; `fast`, `easy` and `secure` are none until they are.",
            "What is needed and how it is done are kept apart.",
            "Guessing is allowed only as a marked default that somebody can reject.",
        ],
    )
    task = "Work out the requirements behind this request."
    steps = Steps(
        quick=[
            "Say who needs what, to achieve what, and how they manage today.",
            "List the requirements as checkable sentences, most important first.",
        ],
        standard=[
            "Give each requirement an example with an input and the expected result, and one that must be refused.",
            "Say what is out of scope, although somebody might expect it.",
        ],
        thorough=[
            "Walk through what goes wrong: wrong input, no permission, nothing there, too much, at once, halfway.",
            "Put figures on what is asked for: volume, speed, availability, how long data is kept; mark guesses.",
            "Point out requirements that contradict each other, and propose which one yields.",
        ],
        comprehensive=[
            "Slice the work into deliveries that are each useful alone, and say what each would teach.",
            "Name who else is touched: operators, support, auditors, other systems; give the requirement of each.",
            "Write the acceptance test of the first delivery as steps a stranger could follow.",
        ],
        closing="Ask the three questions whose answers would change the work most.",
    )
    constraints = Constraints(
        must=["number the requirements", "mark every default that was not in the request"],
        must_not=["choose technology", "turn an open question into a requirement"],
        format="headings Need, Requirements, Examples, Out of scope, Questions",
    )

    def build_context(self, **arguments: Unpack[AboutRequest]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutPeople(TypedDict):
    """Arguments of `StakeholderMapper`."""

    plan: str
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class StakeholderMapper(ReasoningTemplate):
    """Finds whom a plan touches, what they want and fear, and how to bring them along."""

    guidance = Guidance(
        role="an adviser who knows that plans are stopped by people who were asked too late",
        goal="show whose support is needed, what it depends on, and whom to speak to first",
        rules=[
            "People have interests, not just positions: ask what somebody wants the position for.",
            "Whoever has no voice in the plan is a stakeholder too.",
        ],
    )
    task = "Map the people and groups this plan touches."
    steps = Steps(
        quick=[
            "List the groups the plan touches, and how: who pays, who works, who gains, who loses, who can say no.",
            "Name the two whose refusal would end it.",
        ],
        standard=[
            "For each group: what it wants, what it fears, and what it knows of the plan today.",
            "Place each by influence and by how much the plan changes its life.",
        ],
        thorough=[
            "Find the conflicts: where one group's gain is another's loss, and what would be a fair trade.",
            "Find alliances, and the person others listen to.",
            "Propose for each important group what to offer, what to ask, and through whom.",
        ],
        comprehensive=[
            "Retell the plan in the words of its strongest opponent, so that they would agree with the summary.",
            "Say how positions will move over time, and which event moves them.",
            "Write the order of conversations for the first month, with what must be known before the next one.",
        ],
        closing="Say whom to speak to first, and with what question.",
    )
    constraints = Constraints(
        must=["mark what is inferred about people's motives as inferred"],
        must_not=["advise deceiving or bypassing anybody", "treat a group as one mind where it is split"],
        format="a table with group, stake, influence, wants, fears, next step; then the order of conversations",
    )

    def build_context(self, **arguments: Unpack[AboutPeople]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)
