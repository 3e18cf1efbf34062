"""Templates that look ahead: what to do, and what may come of it."""

from __future__ import annotations

from typing import NotRequired, TypedDict, Unpack

from llmling.manifest.prompts import Depth
from llmling.prompts.context import Context
from llmling.prompts.parts import Constraints, Guidance
from llmling.prompts.template import Material, ReasoningTemplate, Steps


class AboutRisks(TypedDict):
    """Arguments of `RiskAssessor`."""

    decision: str
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class RiskAssessor(ReasoningTemplate):
    """Finds what can go wrong with a decision, how bad and how likely, and what to do about it beforehand."""

    guidance = Guidance(
        role="a risk assessor who has seen projects fail for reasons that were written down and not read",
        goal="let the deciders know which risks they take, and which they can make smaller cheaply",
        rules=[
            "A risk is an event with a cause and a consequence, not a topic.",
            "Deciding nothing is an option and has risks too.",
            "Likelihood and impact are ranges with a reason, never a bare number.",
        ],
    )
    task = "Assess the risks of this decision."
    steps = Steps(
        quick=[
            "Say what is decided, by when, and how hard it is to undo.",
            "Name the five most important risks as: because of X, Y may happen, which leads to Z.",
        ],
        standard=[
            "Give each risk a likelihood and an impact (low, medium, high) with the reason for both.",
            "For each high one, name a measure that lowers it, its cost, and the risk that remains.",
        ],
        thorough=[
            "Go through money, people, law, security, technology, suppliers, customers; say where nothing was found.",
            "Find the risks that set each other off, and the single point whose failure takes most with it.",
            "For each high risk, name an early sign, who watches it, and the value at which to act.",
        ],
        comprehensive=[
            "Assess doing nothing and the best alternative by the same measure, and compare.",
            "Describe the plausible worst case as a short story with its consequence in figures.",
            "Say how sensitive the recommendation is: which single assumption, if wrong, turns it around?",
            "Write the conditions under which the decision should be stopped or taken back.",
        ],
        closing="Recommend: go, go with conditions, or do not go.",
    )
    constraints = Constraints(
        must=["order risks by likelihood times impact", "separate what is known from what is assumed"],
        must_not=["list a risk without a consequence", "propose measures that cost more than the risk"],
        format="a table with risk, likelihood, impact, early sign, measure; then the recommendation in two sentences",
    )

    def build_context(self, **arguments: Unpack[AboutRisks]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutChoice(TypedDict):
    """Arguments of `DecisionMatrix`."""

    decision: str
    options: NotRequired[Material]
    criteria: NotRequired[Material]
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class DecisionMatrix(ReasoningTemplate):
    """Compares options by weighted criteria, and says how firmly the winner stands."""

    guidance = Guidance(
        role="a facilitator of decisions who wants people to see what their choice rests on",
        goal="make the comparison so plain that a reader can change a weight and see what follows",
        rules=[
            "Weights come before scores, so that no favourite bends them.",
            "A criterion on which all options are equal is dropped.",
            "An option that misses a must is out, however well it scores.",
        ],
    )
    task = "Compare the options for this decision. Options or criteria that are not given: propose them first."
    steps = Steps(
        quick=[
            "List the options and at most four criteria; mark criteria that are a must.",
            "Score each option from 1 to 5 on each criterion, with a few words of reason.",
        ],
        standard=[
            "Give the criteria weights that add up to 100, with the reason for the largest and the smallest.",
            "Compute the weighted totals and show the arithmetic of the first two places.",
        ],
        thorough=[
            "Add an option nobody has named: a combination, a smaller step, or waiting.",
            "Vary the most disputed weight by half in both directions; say whether the winner stays.",
            "Say which score rests on the thinnest knowledge and what it would take to know better.",
        ],
        comprehensive=[
            "Look at the winner through the eyes of who loses by it, and of who has to run it in two years.",
            "State what would have to be true for the second place to be the right choice.",
            "Propose how to decide in steps, so that the most is learned before the least can be undone.",
        ],
        closing="Name the winner and its greatest weakness.",
    )
    constraints = Constraints(
        must=["score every option on every criterion", "say when two options are too close to call"],
        must_not=["use criteria that count the same thing twice", "hide a must among the weights"],
        format="a table with a row per option and a column per criterion, weights in the head, totals last",
    )

    def build_context(self, **arguments: Unpack[AboutChoice]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutPlan(TypedDict):
    """Arguments of `PremortemAnalyst`."""

    plan: str
    situation: NotRequired[Material]
    depth: NotRequired[Depth]


class PremortemAnalyst(ReasoningTemplate):
    """Imagines that a plan has failed and tells how it came to that."""

    guidance = Guidance(
        role="somebody writing from the future, after this plan has failed for certain",
        goal="find the ways to fail that optimism hides, while they can still be closed",
        style="Concrete and in past tense, as a witness would tell it.",
        rules=[
            "The failure is a fact here; whether it happens is not discussed.",
            "Prefer failures that begin small and are ignored for good reasons.",
        ],
    )
    task = "It is one year later and this plan has failed. Explain how."
    steps = Steps(
        quick=[
            "Say what failure looks like: what did not happen, or what happened instead.",
            "Tell three different stories of how it came about, each in a few sentences.",
            "For each, name the one thing to do this week that would have prevented it.",
        ],
        standard=[
            "In each story, mark the moment at which it could last have been turned around cheaply.",
            "Name the sign that was there at that moment, and why it was explained away.",
        ],
        thorough=[
            "Tell one story in which everybody does their job well and it fails all the same.",
            "Tell one in which it fails by succeeding: more demand, more attention, more growth than it can bear.",
            "Rank the stories by plausibility and by how much of the plan each would take with it.",
        ],
        comprehensive=[
            "Rewrite the plan's riskiest part so that the most plausible story can no longer happen.",
            "Give the criteria, with dates, by which to stop the plan before it fails expensively.",
            "Say which story the people behind the plan will like least to hear, and how to tell them.",
        ],
        closing="Choose the one prevention to begin with, and say why it comes first.",
    )
    constraints = Constraints(
        must=["tie each story to something written in the plan"],
        must_not=["count general bad luck as a story", "soften the failure", "repeat one story in other words"],
        format="one heading per story with Story, Last turning point, Sign, Prevention",
    )

    def build_context(self, **arguments: Unpack[AboutPlan]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutFuture(TypedDict):
    """Arguments of `ScenarioPlanner`."""

    question: str
    situation: NotRequired[Material]
    horizon: NotRequired[str]
    depth: NotRequired[Depth]


class ScenarioPlanner(ReasoningTemplate):
    """Builds a few different futures and finds what is right in all of them."""

    guidance = Guidance(
        role="a scenario planner who predicts nothing and prepares for much",
        goal="widen the view of what may come and find moves that hold in more than one future",
        rules=[
            "Scenarios differ in kind, not in degree: no best, middle and worst case.",
            "What is certain to come is in every scenario; only what is uncertain and important divides them.",
        ],
    )
    task = "Build scenarios for this question."
    steps = Steps(
        quick=[
            "Name the two forces that matter most and are least certain; give the two ends of each.",
            "Cross them into four futures with a telling name and three sentences each.",
        ],
        standard=[
            "List what is certain over the horizon, and let every future keep to it.",
            "For each future, say what answer to the question it gives.",
        ],
        thorough=[
            "For each future, tell the way there as a chain of events from today.",
            "For each, name two early signs that would be seen within a year, and where to look for them.",
            "Sort the moves: good in all, good in some and cheap to keep open, good in one only.",
        ],
        comprehensive=[
            "Put today's strategy into each future and say where it breaks first.",
            "Add a wild card that fits none of the four, and what it would teach.",
            "Propose when to look at the signs again and what would make a scenario obsolete.",
        ],
        closing="Name one move that helps in at least three of the futures.",
    )
    constraints = Constraints(
        must=["keep every future free of contradictions", "say what each future is bad for"],
        must_not=["give probabilities to the futures", "let one future be plainly the wish"],
        format="a section per future, then a table of moves against futures",
    )

    def build_context(self, **arguments: Unpack[AboutFuture]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)


class AboutQuantity(TypedDict):
    """Arguments of `EstimateBuilder`."""

    question: str
    evidence: NotRequired[Material]
    depth: NotRequired[Depth]


class EstimateBuilder(ReasoningTemplate):
    """Estimates a quantity by taking it apart, with a range and a second way as a check."""

    guidance = Guidance(
        role="an estimator who is judged by how often the truth lies within the given range",
        goal="give a range that is as narrow as the knowledge allows and no narrower",
        rules=[
            "Take the quantity apart until each factor is known, can be looked up or can be bounded.",
            "Carry units through every line.",
        ],
    )
    task = "Estimate this quantity."
    steps = Steps(
        quick=[
            "Restate what is asked with its unit, its place and its time.",
            "Write it as a product or sum of at most five factors.",
            "Give each factor a low, a likely and a high value, and compute the result.",
        ],
        standard=[
            "Say where each value comes from: given, known, or guessed and from what.",
            "Name the factor that widens the range most.",
        ],
        thorough=[
            "Estimate the whole a second time by an independent way, such as from the other end or from a known total.",
            "Where the two differ by more than a factor of two, find out why and correct one of them.",
            "Give the final range as the one that holds the truth nine times out of ten.",
        ],
        comprehensive=[
            "Look up or recall a similar quantity in another place or time as a reference class, and compare.",
            "Vary each factor alone from low to high and list what the result becomes.",
            "Name the cheapest measurement that would halve the range.",
        ],
        closing="State the final range, and how sure you are that it holds the truth.",
    )
    constraints = Constraints(
        must=["show every multiplication", "round the result to the digits that mean something"],
        must_not=["give a single number without a range", "average two estimates without explaining their difference"],
        format="a table of factors with low, likely, high and source; the result in one line",
    )

    def build_context(self, **arguments: Unpack[AboutQuantity]) -> Context:
        """Build the prompt; see `ReasoningTemplate.build` for the errors."""
        return self.build(arguments)
