"""Directions that the terms leave free, residuals that no direction reaches, and the error of u."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pinn_ntk.graph.jacobian.empirical import empirical_ntk
from pinn_ntk.graph.terms.learned import set_aside
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.fields import beside_networks, fields, leaves
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


CONSTANT = "a constant"
"""Share of what is free that is one; no name of a coefficient has a space."""


class Directions(Reruns):
    """Quantities of the joint kernel of all terms."""

    @property
    def _joint(self) -> tuple[Joint, dict[str, Tensor]] | None:
        """The kernel of residuals, fields and coefficients, and the fields, (M,) each."""
        if "_joint" not in self.__dict__:
            self.__dict__["_joint"] = self._joined()
        return self.__dict__["_joint"]  # type: ignore[no-any-return]

    def _joined(self) -> tuple[Joint, dict[str, Tensor]] | None:
        ran = self.wide
        bound = self._bound()
        free = self.look.trained.keys() - set(bound)
        params = {n: p for n, p in ran.params.items() if n in free}
        found = fields(ran, self.equations) if self.equations else {}
        if not found or not params:
            return None
        some = {name: _some(u, VALUES) for name, u in found.items()}
        asked = {_field(name): u for name, u in some.items()}
        live = {t: r for t, r in ran.residuals.items() if r.requires_grad}
        used = set().union(*map(leaves, live.values()))
        in_u = set().union(*(beside_networks(u, ran) for u in found.values()))
        told = [n for n in self._coefficients() if n in params and n not in in_u]
        asked |= {f" {n}": _numbers(params[n]) for n in told if id(params[n]) in used}
        rows = {t: _some(self.counted(t, r), ROWS) for t, r in live.items()}
        kernel = empirical_ntk({**rows, **asked}, params, certify=False)
        moved = {t: r for t, r in rows.items() if kernel.trace(t) > 0}
        trained = {n: found[n].detach() for n in some if kernel.trace(_field(n)) > 0}
        return (Joint(kernel, moved), trained) if moved and trained else None

    @quantity("what the terms leave free", dict)
    def free(self) -> dict[str, float]:
        """Largest v at points of the equation over the prior one; v of its largest mode over u^2.

        ``mode`` is the share of that mode: large where a condition is missing, small where points
        are few for what the network may do between them; `CONSTANT` is 1 where it is u + c. Of each
        coefficient that is trained its own variance, where 1 is the prior one.
        """
        if self._joint is None:
            return {}
        joint, of_fields = self._joint
        found = _loose(joint, *next(iter(of_fields.items())))
        for name in self._coefficients():
            if f" {name}" in joint.kernel.terms:
                found[name] = float(joint.variance(f" {name}")[1].max())
        return found

    @quantity("what the terms leave free of fields beside u", dict)
    def free_beside(self) -> dict[str, dict[str, float]]:
        """Field -> the same of it, where there are several."""
        if not self.free or self._joint is None:
            return {}
        joint, of_fields = self._joint
        return {name: _loose(joint, name, u) for name, u in list(of_fields.items())[1:]}

    @quantity("the error of u", nothing)
    def error(self) -> float | None:
        """Root mean square of du over that of u: how wrong u is, as far as residuals tell."""
        if self._joint is None:
            return None
        joint, found = self._joint
        return _off(joint, *next(iter(found.items())))

    @quantity("the error of coefficients", dict)
    def off(self) -> dict[str, float]:
        """Coefficient that is trained -> its change by the same step, over its larger value.

        And each field beside u -> the same as the error of u.
        """
        if self._joint is None:
            return {}
        joint, of_fields = self._joint
        beside = list(of_fields.items())[1:]
        found = {name: x for name, u in beside if (x := _off(joint, name, u)) is not None}
        for name in self._coefficients():
            if f" {name}" in joint.kernel.terms:
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
        """Those that a penalty holds, or that scale a term, and that the terms need not tell."""
        loss = self.look.loss
        held = {id(p) for p in set_aside(loss)} if loss is not None and loss.requires_grad else ()
        bound = [n for n in self._coefficients() if id(self.look.trained[n]) in held]
        return [*bound, *(name for name, scales in self.scaling.items() if scales)]

    @quantity("what scales whole terms", dict, lasts=bool)
    def scaling(self) -> dict[str, bool]:
        """Parameter outside of the networks -> whether all terms that hold it vanish with it."""
        groups = self.look.groups
        outside = [n for n in self.look.trained if groups.get(n) == "inverse"][:FEW]
        return {name: self._scales(name) for name in outside}

    def _scales(self, name: str) -> bool:
        if self.base is None:
            return False
        without = self.rerun(Change(parameters=lambda n, p: p * 0 if n == name else p)).residuals
        held = [r for t, r in without.items() if not torch.equal(r, self.base.residuals[t])]
        return bool(held) and not any(r.any() for r in held)

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


def _field(name: str) -> str:
    """Name of a field in the kernel, beside terms and coefficients."""
    return f"  {name}"


def _loose(joint: Joint, name: str, u: Tensor) -> dict[str, float]:
    """What the residuals leave of a field, see `Directions.free`."""
    prior, left = joint.variance(_field(name))
    largest, share = joint.leading(_field(name))
    outputs = u.shape[1] if u.ndim == 2 else 1
    level = joint.level(_field(name), _places(u.numel(), VALUES) % outputs)
    size = largest / rms(_some(u, VALUES)) ** 2
    return {"u": float((left / prior).max()), "size": size, "mode": share, CONSTANT: level}


def _off(joint: Joint, name: str, u: Tensor) -> float | None:
    """Root mean square of du over that of a field."""
    size = rms(_some(u, VALUES))
    return rms(joint.change(_field(name))) / size if size else None


def _numbers(coefficient: Tensor) -> Tensor:
    """A coefficient as rows, by an operation whose factors are known."""
    eye = torch.eye(coefficient.numel(), dtype=coefficient.dtype, device=coefficient.device)
    return nn.functional.linear(eye, coefficient.reshape(1, -1)).flatten()


def _some(tensor: Tensor, most: int) -> Tensor:
    """Evenly strided entries of a live tensor."""
    flat = tensor.flatten()
    return flat[_places(len(flat), most)]


def _places(length: int, most: int) -> Tensor:
    return torch.linspace(0, length - 1, min(most, length)).round().long()
