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
        self._seen: set[str] = set()

    def check(self, at: Backward, look: Look) -> None:
        """IncompleteTermsError where the gradient of the loss is not that of its terms."""
        if at.loss is not None and look.found.signature not in self._seen:
            self._seen.add(look.found.signature)
            remark = partial(remarks, at.loss, self.finder, look.trained.values(), look.scale)
            for what, said in (self.guard.run("comparing loss and terms", remark) or {}).items():
                self.guard.tell_once(f"{self.guard.owner}: {said}", what)
            if look.found.from_function and self.finder.strangers.known:
                self.finder.strangers.matter(UNKNOWN)
        if not look.undefined:
            self.finder.check(at.loss, look.found)

    def tell_undefined(self, look: Look) -> None:
        """Of terms that have no kernel since they are not finite: warn once."""
        if look.undefined:
            names = " and ".join(look.undefined)
            self.guard.warn_once(
                "undefined",
                f"at step {look.step} the residual of {names} holds NaN or inf and is not "
                "measured: its trace is logged as NaN. Likely training has diverged (try a smaller "
                "learning rate), or a point lies on a singularity.",
            )
