"""Rules that come before anything else: whether there are numbers and gradients at all."""

from __future__ import annotations

from pinn_ntk.analysis.wording import number
from pinn_ntk.verdict.case import WHOLE, Case
from pinn_ntk.verdict.cause import Cause
from pinn_ntk.verdict.verdict import FACT, LIKELY, Evidence, Verdict

UNSTABLE = 2.0
"""lr mu_max from which plain descent is unstable."""


DEAD = 0.9
"""Share of dead units from which these are the cause."""

HARMLESS = 3.0
"""Growth of mu_max by a balancer's weights up to which they are not the cause."""


def diverged(case: Case) -> Verdict | None:
    """A loss or a residual is NaN or infinite."""
    if case.not_finite is None:
        return None
    if (balancer := _by_balancer(case)) is not None:
        return balancer
    about = ", ".join(case.undefined)
    evidence = (Evidence("first step that was not finite", case.not_finite, ""),)
    remedy = f"A smaller learning rate{_bound(case)}, or gradient_clip_val=1 in the Trainer."
    if case.not_finite <= 1:
        remedy = (
            "It began so: look for a root, a logarithm, a quotient or a power at a point where it "
            "has no value or no slope."
        )
    return Verdict(Cause.DIVERGED, about, evidence, FACT, remedy)


def _by_balancer(case: Case) -> Verdict | None:
    """Whether steps were bearable but for the weights of a balancer, when they were last seen."""
    seen = [one for one in case.previous if one.get("curvature_unbalanced")]
    if not case.balanced or not seen or not seen[-1].get("lr"):
        return None
    lr, mu = seen[-1]["lr"], seen[-1]["curvature_now"]
    without = seen[-1]["curvature_unbalanced"]
    bearable = case.plain and lr * without > UNSTABLE  # they did not do it alone
    if not mu > HARMLESS * without or bearable:
        return None
    evidence = (
        Evidence("first step that was not finite", case.not_finite or 0, ""),
        Evidence("lr mu_max with the weights of the balancer", lr * mu, "unstable above 2"),
        Evidence("lr mu_max without them", lr * without, ""),
    )
    remedy = (
        f"The balancer is the cause: a learning rate smaller by {number(mu / without, 1)} beside "
        "it, or NTKBalancer(max_weight=...) below its largest weight."
    )
    title = "diverged by the weights of the balancer"
    about = ", ".join(case.undefined)
    confidence = FACT if case.plain else LIKELY
    return Verdict(Cause.DIVERGED, about, evidence, confidence, remedy, title)


def _bound(case: Case) -> str:
    return f" (below {2 / case.mu_max:.1g})" if case.plain and case.mu_max else ""


def detached(case: Case) -> Verdict | None:
    """A part of the loss moves no parameter."""
    if not case.untrained:
        return None
    if case.unheld and (others := not_trained(case)) is not None:
        return others
    if case.piecewise_linear:
        return _flat(case)
    said, _, remedy = case.untrained.partition(". ")
    return Verdict(Cause.DETACHED, said, (), FACT, remedy)


SMOOTH = "Use tanh, sin, SiLU or GELU: this activation has no derivative of that order."


STRAIGHT = Evidence("smooth activations", 0, "all are like ReLU")


def _flat(case: Case) -> Verdict:
    """A network of straight pieces leaves nothing of a second derivative to be trained."""
    said, _, _ = case.untrained.partition(". ")
    remedy = f"{SMOOTH} If the term has no second derivative, look for detach() or .item() in it."
    return Verdict(Cause.DERIVATIVE_VANISHES, said, (STRAIGHT,), LIKELY, remedy)


def wrapped(case: Case) -> Verdict | None:
    """A part of the loss is a number that was made a tensor anew."""
    if not case.wrapped:
        return None
    evidence = (Evidence("numbers in the loss with no parameter behind", case.wrapped, ""),)
    remedy = "Add the tensor itself: torch.tensor(loss.item(), requires_grad=True) has no graph."
    return Verdict(Cause.DETACHED, "", evidence, FACT, remedy)


CHANGED, COUNTS = 0.02, 0.01
"""Change of what of the loss depends on no parameter, over itself; its share of the loss."""


def lost(case: Case) -> Verdict | None:
    """A part of the loss that depends on no parameter changes all the same."""
    before = next((one["constant"] for one in case.previous if one.get("constant")), None)
    now, size = case.constant, abs(case.constant)
    if before is None or abs(now - before) <= CHANGED * max(size, abs(before)):
        return None
    if size <= COUNTS * sum(case.weights.get(t, 1.0) * x**2 for t, x in case.rms.items()):
        return None
    evidence = (
        Evidence("part of the loss that depends on no parameter", now, "counts in its value alone"),
        Evidence("the same at an earlier measurement", before, "so it is computed from u"),
    )
    remedy = "Add the tensor itself to the loss, not .item() of it, and not one of no_grad()."
    return Verdict(Cause.DETACHED, "", evidence, LIKELY, remedy)


def cut_off(case: Case) -> Verdict | None:
    """The graph of a residual does not give its derivative."""
    wrong = {t: x for t, x in case.cut.items() if x > WHOLE and t in case.unsolved}
    if not wrong or case.kinks.get(max(wrong, key=wrong.__getitem__), 0.0) > MISSED:
        return None
    term = max(wrong, key=wrong.__getitem__)
    if case.piecewise_linear:
        evidence = (Evidence(f"error of the derivative of {term}", wrong[term], "it has jumps"),)
        remedy = "Use tanh, sin, SiLU or GELU: derivatives of ReLU and its kin have jumps."
        return Verdict(Cause.DERIVATIVE_VANISHES, term, evidence, LIKELY, remedy)
    evidence = (Evidence(f"error of the derivative of {term}", wrong[term], "exact below 0.003"),)
    remedy = (
        "Part of the residual is cut off from the parameters: create_graph=True in every "
        "torch.autograd.grad, and no detach(), .data or no_grad() on the way."
    )
    return Verdict(
        Cause.DETACHED, term, evidence, LIKELY, remedy, "a part of a term has no gradient"
    )


STEEP = 0.5
"""Share of flat units from which smooth ones are as good as steps."""

MISSED = 0.3
"""Share of the change of a derivative that the next one misses."""


def kinks(case: Case) -> Verdict | None:
    """The network has kinks where the equation needs it smooth."""
    kinked = {t: x for t, x in case.kinks.items() if x > MISSED or case.piecewise_linear}
    if not kinked or (case.saturated or 0.0) > STEEP:
        return None
    term = max(kinked, key=kinked.__getitem__)
    missed = Evidence("share of it that autograd misses, at kinks", kinked[term], "above 0.3")
    evidence = (
        Evidence(f"highest derivative in {term}", case.order[term], ""),
        STRAIGHT if case.piecewise_linear else missed,
    )
    return Verdict(Cause.DERIVATIVE_VANISHES, term, evidence, FACT, SMOOTH)


def kernel_is_zero(case: Case) -> Verdict | None:
    """No parameter moves a term, though some stand in its graph."""
    still = [t for t, rate in case.rates.items() if not rate > 0 and case.rms.get(t)]
    moved = {t for one in case.previous for t, rate in one.get("rates", {}).items() if rate > 0}
    if not still or still[0] in moved or (case.dead or 0.0) > DEAD:
        return None
    evidence = (Evidence(f"kernel of {still[0]}", 0.0, "no parameter moves it"),)
    if case.kinked:
        confidence = FACT if case.piecewise_linear else LIKELY
        return Verdict(Cause.DERIVATIVE_VANISHES, still[0], evidence, confidence, SMOOTH)
    remedy = "Look for detach(), .data or no_grad() on the way, or a derivative that is zero."
    title = "no parameter moves a term"
    return Verdict(Cause.DETACHED, still[0], evidence, LIKELY, remedy, title)


SHARE, OF_NETWORK = 0.5, 0.05
"""Share of the kernel from which frozen parameters are the cause; those of a whole network."""


STRANGE = "parameter of shape"
"""How parameters are called that the module does not find."""


def not_trained(case: Case) -> Verdict | None:
    """Parameters in the graph that no optimizer holds, or whose learning rate is 0."""
    if case.unheld and (case.unheld_share or 0.0) > 0:
        share = Evidence(
            "share of the kernel that no optimizer holds", case.unheld_share or 0.0, "any"
        )
        evidence = (share,)
        remedy = "Give these to the optimizer as well: torch.optim.Adam(self.parameters(), ...)."
        if any(name.startswith(STRANGE) for name in case.unheld):
            remedy = (
                "The module does not find these, so self.parameters() leaves them out: hold them "
                "in an nn.ParameterList, nn.ModuleList or nn.ParameterDict, not in a list or dict."
            )
        return Verdict(Cause.NOT_TRAINED, _listed(case.unheld), evidence, FACT, remedy)
    if case.idle:
        evidence = (Evidence("learning rate of their group", 0.0, "that of others is not"),)
        remedy = "Give their parameter group a learning rate."
        return Verdict(Cause.NOT_TRAINED, _listed(case.idle), evidence, LIKELY, remedy)
    return None


def frozen(case: Case) -> Verdict | None:
    """Parameters without a gradient have a share in the kernel that is missed."""
    bound = OF_NETWORK if case.frozen_network else SHARE
    if case.frozen and (case.frozen_share or 0.0) > bound:
        evidence = (Evidence("share of the kernel that is frozen", case.frozen_share or 0.0, ""),)
        remedy = "Let them be trained: requires_grad_(True), and give them to the optimizer."
        return Verdict(Cause.NOT_TRAINED, _listed(case.frozen), evidence, LIKELY, remedy)
    return None


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def broadcast(case: Case) -> Verdict | None:
    """A residual has N N rows where its points are N."""
    for term, said in case.accidents.items():
        side = max(case.shapes[term])
        evidence = (Evidence(f"rows of {term}", case.rows[term], f"for {side} points"),)
        remedy = f"Give prediction and target one shape. {said.rpartition('. ')[2]}"
        return Verdict(Cause.BROADCAST, term, evidence, FACT, remedy)
    return None
