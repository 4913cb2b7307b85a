"""What is known of each cause, by name: what it is, how it is seen, what helps, what to read."""

from __future__ import annotations

from typing import NamedTuple


class About(NamedTuple):
    """What is known of a cause."""

    title: str
    is_: str  # what it is
    seen: str  # how it is seen
    helps: str  # what helps
    source: str = ""  # where to read on


ABOUT: dict[str, About] = {
    "UNKNOWN": About(
        "unknown",
        "Something is not solved, and none of the causes below is seen.",
        "A term is not solved, and no rule reaches its threshold.",
        "Look at the numbers named beside it; give residuals= so that more can be looked at.",
    ),
    "DIVERGED": About(
        "diverged",
        "Loss or residuals are NaN or infinite. From there no step leads back.",
        "A residual or the loss is not finite, now or at any step before.",
        "A smaller learning rate, clipping; roots, logs, quotients kept off their singularities.",
        "Wang, Yu, Perdikaris 2022, sec. 7",
    ),
    "DETACHED": About(
        "a term has no gradient",
        "A part of the loss counts in its value but moves no parameter, or moves them wrongly.",
        "It has no graph, though it changes; or a derivative is not what its graph says.",
        "create_graph=True in every torch.autograd.grad; no detach(), .item() or no_grad().",
        "torch.autograd.grad",
    ),
    "DERIVATIVE_VANISHES": About(
        "a derivative vanishes",
        "The activation has no second derivative (ReLU and its kin), but the equation needs one.",
        "The kernel of the term is zero, or derivatives miss what they should add up to (kinks).",
        "tanh, sin, SiLU or GELU in place of ReLU.",
        "Raissi, Perdikaris, Karniadakis 2019",
    ),
    "NOT_TRAINED": About(
        "parameters are not trained",
        "Parameters that the residuals depend on are held by no optimizer, or are frozen.",
        "They stand in the graph of the loss, and in no param_group.",
        "Give self.parameters() to the optimizer, second networks and coefficients included.",
        "torch.optim",
    ),
    "BROADCAST": About(
        "broadcast residual",
        "A column (N, 1) minus a row (N,) is a matrix (N, N): each point is compared with the "
        "target of every other one, and the mean of the targets is learned.",
        "The residual has N M rows where its operands have N and M.",
        "Give prediction and target one shape, as by f[:, None].",
        "numpy broadcasting rules",
    ),
    "REPEATED_POINTS": About(
        "repeated points",
        "Many rows of a term are at the same point, so that little is asked of the network.",
        "Inputs of the network are equal, entry by entry.",
        "Mend the sampler.",
    ),
    "INPUTS_NOT_SCALED": About(
        "inputs are not scaled",
        "The first layer sees numbers far from [-1, 1]: its units saturate or differ in nothing.",
        "|x| above 20, a spread below 0.01, or a mean above ten spreads.",
        "x -> 2 (x - min) / (max - min) - 1, inside of the network, so that derivatives stay those "
        "with respect to x.",
        "Glorot, Bengio 2010; LeCun et al. 1998",
    ),
    "SATURATED": About(
        "saturated or dead units",
        "Most units answer with the same number at all points, and no gradient passes through.",
        "The slope of the activation is below 0.05 for most units and points, or units of a ReLU "
        "are zero at all points.",
        "A smaller initialisation (Xavier for tanh), scaled inputs, a smaller learning rate.",
        "Glorot, Bengio 2010",
    ),
    "NOTHING_TO_FIND": About(
        "u = 0 solves everything",
        "All terms are homogeneous, and the network has found u = 0.",
        "Every residual at u = 0 is zero, and the output is close to that.",
        "A condition that excludes u = 0 is missing: a velocity, a norm, a source.",
        "Wong et al. 2022 (trivial solutions of PINNs)",
    ),
    "OUTPUTS_NOT_SCALED": About(
        "outputs are not scaled",
        "What is sought is far from 1 in size, where a network does not start and seldom gets.",
        "The u that a term asks for is above 100 in size, or below 3e-3 in every term.",
        "u = scale * net(x), with the size of the data; or equations in units in which u is 1.",
        "Wang et al. 2023 (An expert's guide), sec. 4",
    ),
    "RANDOM_OR_DECAY": About(
        "random residual, or weight decay",
        "Dropout or noise makes another function each step; or a decay of the parameters pulls "
        "harder than the loss.",
        "Two calls at one point differ by more than 1 %; the decay is above 0.2 of the gradient.",
        "Dropout off; weight_decay=0.",
        "Loshchilov, Hutter 2019",
    ),
    "STEP_TOO_SHORT": About(
        "steps are too short",
        "All steps together are shorter than the fastest direction of the kernel needs.",
        "Sum of lr_eff mu_max below 2, or a way of all steps below a tenth of the parameters.",
        "A larger learning rate; clipping off; a schedule that does not fall to zero.",
        "Wang, Yu, Perdikaris 2022, eq. 3.10",
    ),
    "EARLY": About(
        "early",
        "Not solved yet, and the loss still falls.",
        "The loss fell by 0.1 decades in the last tenth; or lr times steps is below 0.6 (Adam); or "
        "terms are solved, but what is left of them amounts to an error above a tenth of u.",
        "Wait.",
    ),
    "POINTS": About(
        "points are too few or badly placed",
        "The equation holds at the points of the training and nowhere else.",
        "Squared residual between the points over that at them above 100, elsewhere above 20; or "
        "data that explain less than a quarter of each other.",
        "More points, or new ones each step; old points kept beside new ones.",
        "Daw et al. 2023; Krishnapriyan et al. 2021",
    ),
    "TOO_NARROW": About(
        "the network is too narrow",
        "There are fewer parameters than the residuals need, and no direction is left.",
        "Fewer parameters than rows, and the residual lies outside of the range of J.",
        "A wider or deeper network.",
    ),
    "ROUNDING": About(
        "rounding",
        "The residual is a difference of nearly equal numbers, and single precision ends it.",
        "In float64 the residual differs by more than 5 %, or is not 0 where it is 0 otherwise.",
        "Trainer(precision='64-true'), or a formula without the difference.",
    ),
    "STEP_TOO_LARGE": About(
        "steps are too large",
        "The optimizer jumps over the minimum, or has thrown units into saturation.",
        "Steps of a tenth of the parameters saturate units; or the loss jumps and stays high.",
        "A smaller learning rate; under plain descent below 2 / mu_max.",
        "Wang, Yu, Perdikaris 2022, sec. 4",
    ),
    "IMBALANCE": About(
        "imbalance of the terms",
        "One term could learn fast and is not let: the others outweigh it.",
        "It is 10 times less solved than the best, in fast modes; or learns 20 times slower.",
        "A larger weight for it: by hand, or NTKBalancer().",
        "Wang, Yu, Perdikaris 2022, sec. 5; Wang, Teng, Perdikaris 2021",
    ),
    "CAUSALITY": About(
        "early times are not solved",
        "Later times are fitted to a solution that is not there yet.",
        "A tenth of the points holds 65 % of the squared residual, early in time; or what is small "
        "everywhere adds up over a long time; or no step solves an equation and initial values.",
        "Causal weights, or windows in time one after the other.",
        "Wang, Sankaran, Perdikaris 2024",
    ),
    "CONTRADICTION": About(
        "terms contradict each other",
        "No function satisfies all terms.",
        "The loss stands, gradients cancel, and the best step for all terms leaves a fifth of one "
        "that could be solved alone; or values differ where points meet.",
        "Check data, coefficients, signs, and where conditions meet (corners).",
    ),
    "SPECTRAL_BIAS": About(
        "spectral bias",
        "What is left lies in directions that the kernel learns very slowly: high frequencies.",
        "65 % of what is left lies below 1e-3 of the top eigenvalue; or the phase is above 15.",
        "Fourier features, sin activations, or a second-order method.",
        "Rahaman et al. 2019; Tancik et al. 2020; Wang, Wang, Perdikaris 2021",
    ),
    "NOT_UNIQUE": About(
        "the solution is not unique",
        "The terms leave a direction free: u may change and no residual does.",
        "The variance of u given all residuals is above 0.012 u^2, that of a coefficient 0.02.",
        "A condition there: an initial value, a boundary, a datum.",
        "Rasmussen, Williams 2006, sec. 2.2, with the kernel of the network",
    ),
    "CLEAN": About(
        "nothing wrong is seen",
        "All terms are solved, at fresh points too. A wrong equation may look like this.",
        "Residuals are a tenth of what u = 0 leaves, or less, and amount to an error below 0.1 u.",
        "Try a manufactured solution to check the equation itself.",
        "Roache 2002",
    ),
}
