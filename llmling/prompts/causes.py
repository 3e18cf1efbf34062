"""Templates that look back: why something is as it is."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from llmling.manifest.prompts import Depth
from llmling.prompts.context import Context
from llmling.prompts.parts import Constraints, Guidance
from llmling.prompts.template import Material, ReasoningTemplate, Steps


class AboutProblem(TypedDict):
    """Arguments of `RootCauseAnalyzer`."""

    problem: str
    evidence: NotRequired[Material]
    depth: NotRequired[Depth]


class RootCauseAnalyzer(ReasoningTemplate):
    """Finds the cause behind a problem, and tells it from symptoms and triggers."""

    guidance = Guidance(
        role="an investigator of failures who is trusted because every claim can be checked",
        goal="find the cause that, once removed, keeps this problem from coming back",
        rules=[
            "Tell three things apart: the symptom people see, the trigger that set it off, and the cause that let it.",
            "People making mistakes is never the cause; what let the mistake through is.",
            "Mark each statement as observed, inferred or assumed.",
        ],
    )
    task = "Find the root cause of this problem."
    steps = Steps(
        quick=[
            "State the problem as one measurable deviation: what is, what should be, since when, and where not.",
            "Name the two or three most plausible causes and what speaks for and against each.",
        ],
        standard=[
            "Build the chain from symptom to cause by asking why, until one can act on the answer or evidence ends.",
            "Test the cause: does it explain when, where and how much, and also what did not break?",
        ],
        thorough=[
            "Name a cause or rule it out in each: recent changes, load, dependencies, data, configuration, process.",
            "Ask why it was not noticed or stopped earlier; the missing safeguard is a cause of its own.",
            "Propose a remedy for the cause, one for the missing safeguard, and how to see that each has worked.",
        ],
        comprehensive=[
            "Argue the strongest rival explanation as its advocate would; say what evidence decides between the two.",
            "Look for places where the same cause works unseen today.",
            "List the open questions in the order in which answering them would change the conclusion.",
        ],
        closing="Name the most likely cause and the one check that would prove or refute it.",
    )
    constraints = Constraints(
        must=["give a confidence in percent for the cause it names", "name the evidence behind each link of the chain"],
        must_not=["blame a person", "present a correlation in time as a cause", "invent measurements"],
        format="headings Problem, Chain of causes, Root cause, Check, Remedy; the root cause in one sentence",
    )

    def build_context(self, **arguments: Unpack[AboutProblem]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutObservation(TypedDict):
    """Arguments of `HypothesisGenerator`."""

    observation: str
    evidence: NotRequired[Material]
    depth: NotRequired[Depth]


class HypothesisGenerator(ReasoningTemplate):
    """Turns an observation into rival hypotheses and the cheapest experiments that separate them."""

    guidance = Guidance(
        role="an experimental scientist who would rather be proven wrong soon than right late",
        goal="offer explanations that differ in what they predict, and a way to tell them apart",
        rules=[
            "A hypothesis that forbids nothing explains nothing.",
            "Chance, a measurement fault and a change of definition are always on the list.",
        ],
    )
    task = "Explain this observation by hypotheses that can be tested."
    steps = Steps(
        quick=[
            "Say what is surprising about the observation, against which expectation.",
            "Give three hypotheses that work by different mechanisms.",
            "For each, name one thing that must be seen if it is true and would not be seen otherwise.",
        ],
        standard=[
            "Add the dull hypotheses: chance, how it was measured, who was selected, when it was counted.",
            "Rank them by how likely they were beforehand and how well they fit; give both as low, medium or high.",
        ],
        thorough=[
            "Design the cheapest experiment or query that separates the top two, with the result each predicts.",
            "Say which sample size or duration would make its result convincing, and what could confound it.",
        ],
        comprehensive=[
            "Look for combinations: two hypotheses that are true together and hide each other.",
            "Plan the order of experiments as a tree: after each result, what is done next and what is given up.",
        ],
        closing="Name the hypothesis to test first, and the result that would end it.",
    )
    constraints = Constraints(
        must=["say for each hypothesis what would refute it"],
        must_not=["claim that any hypothesis is true", "offer two hypotheses with the same predictions"],
        format="a table with hypothesis, mechanism, prediction, refuted by, rank; then the experiments as a list",
    )

    def build_context(self, **arguments: Unpack[AboutObservation]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutIncident(TypedDict):
    """Arguments of `IncidentReviewer`."""

    incident: str
    evidence: NotRequired[Material]
    depth: NotRequired[Depth]


class IncidentReviewer(ReasoningTemplate):
    """Writes the blameless review of an incident: timeline, impact, what helped, and actions with an owner."""

    guidance = Guidance(
        role="the neutral writer of a blameless incident review",
        goal="let people who were not there understand what happened and what will be different",
        style="Past tense, exact times with their zone, roles instead of names.",
        rules=[
            "Describe what people knew at the time, not what is known now.",
            "What went well belongs in the review as much as what failed.",
        ],
    )
    task = "Write the review of this incident."
    steps = Steps(
        quick=[
            "Sum up the impact: who could not do what, from when to when.",
            "List the turning points with their times: began, noticed, understood, mitigated, over.",
        ],
        standard=[
            "Write the timeline as a table; mark gaps and contradictions of the sources instead of smoothing them.",
            "Separate what set the incident off, what made it worse and what kept it from being noticed.",
        ],
        thorough=[
            "Take apart the time to notice, to understand and to mend, and say what determined each.",
            "Say what worked: which alarm, habit or safeguard limited the damage.",
            "Give each action an owning role, a due date relative to today, and the sign that it is done.",
        ],
        comprehensive=[
            "Compare with how the same failure would have gone at another time of day, load or staffing.",
            "Say which actions only treat this incident and which treat its whole class.",
            "List what the review cannot answer and who could.",
        ],
        closing="Name the two actions that would have shortened or prevented it.",
    )
    constraints = Constraints(
        must=["keep facts and interpretation in separate sentences"],
        must_not=["name or blame persons", "use the words should have", "list an action nobody can finish"],
        format="headings Summary, Impact, Timeline, What contributed, What helped, Actions",
    )

    def build_context(self, **arguments: Unpack[AboutIncident]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutSituation(TypedDict):
    """Arguments of `FirstPrinciplesThinker`."""

    problem: str
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class FirstPrinciplesThinker(ReasoningTemplate):
    """Takes a problem down to what is certainly so and builds a solution up from there."""

    guidance = Guidance(
        role="a thinker who takes nothing for given because everybody does it",
        goal="rebuild the solution from what cannot be otherwise",
        rules=[
            "A law of nature, of arithmetic or of the state is a ground; a habit or a rival's way is not.",
            "Use an analogy to find an idea, never to prove one.",
        ],
    )
    task = "Think through this problem from first principles."
    steps = Steps(
        quick=[
            "Say what is really wanted, without naming any solution.",
            "Split what is believed about it into certainties and conventions.",
            "Sketch one solution that keeps only the certainties.",
        ],
        standard=[
            "For each convention: where does it come from, and what would be possible without it?",
            "Work out the floor: the least cost, time or effort the certainties alone allow; show the arithmetic.",
        ],
        thorough=[
            "Build two more solutions from different certainties, not variations of the first.",
            "Explain the gap between the floor and today's practice: which part is needed, which is habit?",
        ],
        comprehensive=[
            "Attack each certainty: under what condition would it not hold?",
            "Put one convention after the other back and say what each of them buys.",
        ],
        closing="Recommend one solution, and the first small step that would show whether it stands.",
    )
    constraints = Constraints(
        must=["give the reason why each certainty is one", "show every number's derivation"],
        must_not=["justify anything by best practice", "restate the problem as its answer"],
        format="headings Want, Certainties, Conventions, Floor, Solutions, First step",
    )

    def build_context(self, **arguments: Unpack[AboutSituation]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)
