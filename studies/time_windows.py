"""Forgetting: one network trained on time windows one after another, and what the kernel foretells.

    u_t + c u_x = nu u_xx on [0, T] x [0, 2 pi], periodic in x,    u(0, x) = sin(x) + cos(2 x) / 2
    u = exp(-nu t) sin(x - c t) + exp(-4 nu t) cos(2 (x - c t)) / 2,    c = 1, nu = 0.02, T = 3

Time is cut into windows. Each is trained on its own points alone, from the network's own values at
its start, which are held fixed then: time marching with a single network. So what was learned on
the windows before moves again, and how is in the cross kernel K(old points, new points). Each step
of gradient descent on the new residuals r changes the values at the old points by
-lr K(old, new) D r (Jacot, Gabriel, Hongler 2018, section 3), and r by -lr K(new, new) D r. The
loss is a sum of weighted means of squares without the factor 1/2, so D = 2 weight / N.

The first steps on a new window are plain gradient descent, with a learning rate that is a fraction
of the largest stable one, 2 / lambda_max(D^(1/2) K D^(1/2)); after them Adam goes on. The network
is in the standard parametrisation (Xavier).

    python studies/time_windows.py fit --config configs/time_windows.yaml    # 1 minute

At the end a table holds the change that the kernel at the start of a window foretells after 1, 10
and 100 steps against the measured one, the same for the loss on the old windows, and the cosine
between the gradients of the old and the new loss: below 0, steps for the one undo the other. Table
and figure are those of "Forgetting, one time window after another" in docs/results.md.
"""

from __future__ import annotations

from forgetting import Forgetting
from problems import command_line
from windows import Advection, Windows


def main() -> None:
    """Run the command line."""
    study = Forgetting("Time windows of advection and diffusion")
    command_line.run(Advection, Windows, study, max_steps=3000, shared=("end",))


if __name__ == "__main__":
    main()
