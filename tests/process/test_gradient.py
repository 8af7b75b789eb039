"""A gradient that pushes what is predicted, and the agreement of noised pixels with words that it is of."""

from __future__ import annotations

import torch

from histoloom.backbones.backbone import Forward
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainEncoders
from histoloom.process.predictor import Given, Predictor, Push
from histoloom.process.process import Process
from histoloom.process.sampler import pure, sample
from histoloom.process.solver import make_solver
from histoloom.sampling.text_agreement import load_text_agreement
from histoloom.training.clip import clip_config, save_clip

PROCESS = Process("epsilon", "cosine", 1000)


def nothing(x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
    return 0.3 * x


def predictor(**stated) -> Predictor:
    network: Forward = nothing
    return Predictor(network, PROCESS, (), lambda level: lambda name: 1.0, **stated)


def test_the_noise_is_taken_as_less_by_sigma_times_the_gradient():
    x, wanted = torch.randn(2, 3, 4, 4), torch.randn(2, 1)
    pushed = predictor(pushes={"of": Push(lambda noisy, times, to: noisy.sign() * to[..., None, None], 0.7)})
    given = Given(Conditions(), Conditions(), {"of": wanted})
    scales = PROCESS.scales(400)
    eps = 0.3 * x - scales.sigma * 0.7 * x.sign() * wanted[..., None, None]
    assert torch.allclose(pushed.x0(x, 400, given), (x - scales.sigma * eps) / scales.alpha, atol=1e-5)
    assert torch.allclose(pushed.x0(x, [400, 400], given), pushed.x0(x, 400, given), atol=1e-6)
    assert torch.equal(pushed.x0(x, 400, Given(Conditions(), Conditions())), predictor().x0(x, 400, given))


def test_samples_are_pushed_to_agree_with_their_words(tmp_path):
    """By an untrained CLIP: what it says of a picture is still a function of the picture, which the gradient climbs."""
    import open_clip

    text = TrainEncoders().text.model_copy(update={"image_px": 16, "width": 16, "layers": 1, "heads": 2})
    settings = clip_config(text)
    torch.manual_seed(0)
    save_clip(
        open_clip.CLIP(settings["embed_dim"], settings["vision_cfg"], settings["text_cfg"]), settings, tmp_path / "text"
    )
    agreement = load_text_agreement(tmp_path / "text", "cpu")
    wanted = agreement.wanted(["many nuclei", "", "clear space"])
    assert torch.allclose(wanted.norm(dim=1), torch.tensor([1.0, 0.0, 1.0]), atol=1e-5)
    solver, noise = (
        make_solver("ddim", PROCESS, 10),
        torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)),
    )
    made = []
    for push in (0.0, 60.0):
        one = predictor(bound=1.0, pushes={"text": Push(agreement.gradient, push)})
        made.append(sample(one, solver, pure(solver, noise), Given(Conditions(), Conditions(), {"text": wanted})))
    with torch.no_grad():
        free, pushed = ((agreement.clip.encode_image(x, normalize=True) * wanted).sum(1) for x in made)
    assert pushed[0] > free[0] and pushed[2] > free[2] and torch.equal(made[0][1], made[1][1])
