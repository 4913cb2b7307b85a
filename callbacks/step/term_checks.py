"""Whether the terms found in a loss make it up, its value and its gradient."""

from __future__ import annotations

from functools import partial

from pinn_ntk.callbacks.step.manual_backward import Backward
from pinn_ntk.callbacks.step.term_finder import TermFinder
from pinn_ntk.callbacks.step.untrained import remarks
from pinn_ntk.callbacks.trainer.guard import Guard
from pinn_ntk.looks.look import Look

UNKNOWN = "what weight they have in the loss is not known, and rates are those of equal weights"


class TermChecks:
    """Asks once for terms of one signature; what is missing in the value is said, and no error."""

    def __init__(self, finder: TermFinder, guard: Guard) -> None:
        self.finder, self.guard = finder, guard
        self.restart()

    def restart(self) -> None:
        """A fit starts."""
        self._seen: dict[str, dict[str, str]] = {}  # signature -> what is to be said of it

    def remarks(self, at: Backward, look: Look) -> dict[str, str]:
        """What is to be said of the terms of a loss, found out once, by what it is about."""
        signature = look.found.signature
        if at.loss is not None and signature not in self._seen:
            remark = partial(remarks, at.loss, self.finder, look.trained.values(), look.scale)
            self._seen[signature] = self.guard.run("comparing loss and terms", remark) or {}
        return self._seen.get(signature, {})

    def check(self, at: Backward, look: Look) -> None:
        """IncompleteTermsError where the gradient of the loss is not that of its terms."""
        known = look.found.signature in self._seen
        for what, said in self.remarks(at, look).items():
            self.guard.tell_once(f"{self.guard.owner}: {said}", what)
        by_function = at.loss is not None and look.found.from_function
        if by_function and not known and self.finder.strangers.known:
            self.finder.strangers.matter(UNKNOWN)
        if not look.undefined:
            self.finder.check(at.loss, look.found)

    def tell_undefined(self, look: Look) -> None:
        """Of terms that have no kernel since they are not finite: warn once."""
        if look.undefined:
            names = " and ".join(look.undefined)
            self.guard.tell_once(
                f"{self.guard.owner}: at step {look.step} the residual of {names} holds NaN or inf "
                "and is not measured: its trace is logged as NaN. Likely training has diverged "
                "(try a smaller learning rate), or a point lies on a singularity.",
                "undefined",
            )
