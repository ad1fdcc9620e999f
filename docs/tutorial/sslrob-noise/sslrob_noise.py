"""Best of n random draws: the floor that any other attack has to beat."""

from dataclasses import dataclass

from sslrob import Attack, Best, hookimpl


@dataclass(frozen=True)
class Noise(Attack):
    """The best of some uniform draws from the threat model.

    Args:
        draws: random images tried.
    """

    access = "score"
    draws: int = 10

    def perturb(self, objective, images, threat_model, *, streams):
        best = Best(images)
        for _ in range(self.draws):
            candidates = threat_model.random_start(images, streams)
            best.update(candidates, objective(candidates))
        return best.images


@hookimpl
def register_attacks(register):
    register("my-noise", Noise)
