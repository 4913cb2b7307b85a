"""Directions that the terms leave free, residuals that no direction reaches, and the error of u."""

from __future__ import annotations

import torch
from torch import Tensor

from pinn_ntk.graph.jacobian.empirical import empirical_ntk
from pinn_ntk.graph.terms.learned import set_aside
from pinn_ntk.verdict.calls import calls_behind
from pinn_ntk.verdict.joint import Joint
from pinn_ntk.verdict.quantity import nothing, quantity
from pinn_ntk.verdict.reruns import Reruns
from pinn_ntk.verdict.terms import rms

VALUES = 48
"""Points at which the variance of u is taken."""

ROWS = 300
"""Rows of a term that are taken as known."""

FEW = 8
"""Numbers of a coefficient, at most."""

LARGEST = 1500
"""Rows of all terms up to which the range of J is looked at."""


class Directions(Reruns):
    """Quantities of the joint kernel of all terms."""

    @property
    def _joint(self) -> tuple[Joint, Tensor] | None:
        """The kernel of residuals, u and coefficients, and u itself, (M,)."""
        if "_joint" not in self.__dict__:
            self.__dict__["_joint"] = self._joined()
        return self.__dict__["_joint"]  # type: ignore[no-any-return]

    def _joined(self) -> tuple[Joint, Tensor] | None:
        ran = self.wide
        bound = self._bound()
        free = self.look.trained.keys() - set(bound)
        params = {n: p for n, p in ran.params.items() if n in free}
        behind = calls_behind(ran)
        calls = [behind[term] for term in self.equations if term in behind]
        outputs = [c.output for c in calls if not c.leaf and c.output.requires_grad]
        if not outputs or not params or not self.equations:
            return None
        u = _some(max(outputs, key=Tensor.numel), VALUES)
        asked = {" u": u}
        asked |= {f" {n}": params[n].flatten() + 0 for n in self._coefficients() if n in params}
        live = {t: r for t, r in ran.residuals.items() if r.requires_grad}
        rows = {t: _some(self.counted(t, r), ROWS) for t, r in live.items()}
        kernel = empirical_ntk({**rows, **asked}, params, certify=False)
        moved = {t: r for t, r in rows.items() if kernel.trace(t) > 0}
        return (Joint(kernel, moved), u.detach()) if moved else None

    @quantity("what the terms leave free", dict)
    def free(self) -> dict[str, float]:
        """Largest v at points of the equation over the prior one; v of its largest mode over u^2.

        ``mode`` is the share of that mode: large where a condition is missing, small where points
        are few for what the network may do between them. Of each coefficient that is trained its
        own variance, where 1 is the prior one.
        """
        if self._joint is None:
            return {}
        joint, u = self._joint
        prior, left = joint.variance(" u")
        largest, share = joint.leading(" u")
        found = {"u": float((left / prior).max()), "size": largest / rms(u) ** 2, "mode": share}
        for name in joint.kernel.terms:
            if name.startswith(" ") and name != " u":
                found[name[1:]] = float(joint.variance(name)[1].max())
        return found

    @quantity("the error of u", nothing)
    def error(self) -> float | None:
        """Root mean square of du over that of u: how wrong u is, as far as residuals tell."""
        if self._joint is None:
            return None
        joint, u = self._joint
        return rms(joint.change(" u")) / rms(u) if rms(u) else None

    @quantity("the error of coefficients", dict)
    def off(self) -> dict[str, float]:
        """Coefficient that is trained -> its change by the same step, over its larger value."""
        if self._joint is None:
            return {}
        joint, _ = self._joint
        found = {}
        for name in (n[1:] for n in joint.kernel.terms if n.startswith(" ") and n != " u"):
            value = self.look.trained[name].detach().double().flatten()
            change = joint.change(f" {name}").to(value)
            size = max(rms(value), rms(value + change))
            found[name] = rms(change) / size if size else 0.0
        return found

    @quantity("what the best step leaves", dict)
    def apart(self) -> dict[str, tuple[float, float]]:
        """Term -> share that is left by the least step that would end all residuals, and alone.

        Near 1 and near 0 where the term could be solved by itself and not beside the others.
        """
        return {} if self._joint is None else self._joint[0].left_over()

    def _coefficients(self) -> list[str]:
        """Names of the inverse parameters, a few numbers each."""
        groups, trained = self.look.groups, self.look.trained
        few = [n for n, p in trained.items() if p.numel() <= FEW and groups.get(n) == "inverse"]
        return few if any(group == "network" for group in groups.values()) else []

    def _bound(self) -> list[str]:
        """Those of them that a penalty holds, and that the terms need not tell."""
        loss = self.look.loss
        held = {id(p) for p in set_aside(loss)} if loss is not None and loss.requires_grad else ()
        return [name for name in self._coefficients() if id(self.look.trained[name]) in held]

    @quantity("the range of J", nothing)
    def unreached(self) -> float | None:
        """Share of the weighted residual outside of the range of J, fewer parameters than rows."""
        look, kernel = self.look, self.look.kernel
        rows = sum(kernel.rows(term) for term in kernel.terms)
        n_params = sum(p.numel() for p in look.trained.values())
        if any(r.is_complex() for r in look.residuals.values()):
            return None
        if look.curvature is None or look.left_out or n_params >= rows or rows > LARGEST:
            return None
        root = torch.cat([look.curvature[t].double().cpu() for t in kernel.terms]).sqrt()
        r = torch.cat([look.residuals[t].detach().double().flatten().cpu() for t in kernel.terms])
        matrix = root[:, None] * kernel.matrix().double().cpu() * root
        values, vectors = torch.linalg.eigh(matrix)
        above = (values > 1e-9 * values[-1]) & (torch.arange(rows) >= rows - n_params)
        weighted = root * r
        inside = (vectors[:, above].mT @ weighted).square().sum()
        return 1 - float(inside / (weighted @ weighted))


def _some(tensor: Tensor, most: int) -> Tensor:
    """Evenly strided entries of a live tensor."""
    flat = tensor.flatten()
    return flat[torch.linspace(0, len(flat) - 1, min(most, len(flat))).round().long()]
