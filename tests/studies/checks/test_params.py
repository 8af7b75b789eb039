"""What params alone tell of late stages is said by `histoloom validate`, each with its key."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from histoloom.config import Cluster, Params
from histoloom.studies.checks.params import check_stages

CLASSES = {"labels": {"source": "slide", "classes": ["tumour", "stroma"]}}


def faults_of(cluster: dict | None = None, tile: dict | None = None, **sections) -> dict[str, str]:
    params = Params(tile={"mpp": 1.0, "tile_px": 64} | CLASSES | (tile or {}), **sections)
    faults = check_stages(params, Cluster(**(cluster or {"device": "cpu"})), Path("reviews/verdicts.csv"))
    assert all(fault.remedy for fault in faults)
    return {fault.where.removeprefix("params.yaml, "): fault.problem for fault in faults}


CANVAS = {"name": "c", "width_px": 256, "height_px": 256}
STAIN = {"masks": {"source": "stain", "classes": ["nucleus"]}}
LOOKS = {"train_denoiser": {"conditions": ["mask"]}, "filter": {"use": ["mask"]}}
REQUEST = {"name": "more", "tiles": 3}


@pytest.mark.parametrize(
    "key, word, tile, sections",
    [
        ("train_denoiser.channels", "halved 4 times", {}, {"train_denoiser": {"channels": [8] * 5, "steps": 4}, "train_autoencoder": {"down_factor": 8}}),
        ("train_denoiser.windows_latent_px", "32", {}, {"train_denoiser": {"windows_latent_px": [32]}}),
        ("train_denoiser.conditions", "label", {"labels": {"source": "none", "classes": []}}, {"plan": {"target": "none", "evaluation_tiles": 1}, "uplift": {"seeds": 0}}),
        ("train_encoders.text.heads", "5", {}, {"train_encoders": {"text": {"heads": 5}}}),
        ("train_denoiser.attention_head_dim", "96 channels", {}, {"train_denoiser": {"attention_head_dim": 1000}}),
        ("tile.caption", "quotes nothing", {"caption": "H&E"}, {}),
        ("train_denoiser.resume_from", "gone", {}, {"train_denoiser": {"resume_from": "gone"}}),
        ("train_autoencoder.resume_from", "gone", {}, {"train_autoencoder": {"resume_from": "gone"}}),
        ("train_denoiser.mixed_precision", "GPU", {}, {"train_denoiser": {"mixed_precision": "fp16"}}),
        ("sample.precision", "GPU", {}, {"sample": {"precision": "fp16"}}),
        ("train_denoiser.attention", "xformers", {}, {"train_denoiser": {"attention": "xformers"}}),
        ("plan.target", "nothing to make", {}, {"plan": {"target": "none"}}),
        ("plan.target", "one class", {"labels": {"source": "slide", "classes": ["a"]}}, {"uplift": {"seeds": 0}}),
        ("sample.steps", "1000", {}, {"sample": {"steps": 5000}}),
        ("sample_slides.steps", "1000", {}, {"sample_slides": {"slides": [CANVAS], "steps": 1001}}),
        ("plan.requests[0].change.leave_out", "mask", STAIN, {"train_denoiser": {"conditions": ["mask"]}, "plan": {"requests": [REQUEST | {"change": {"leave_out": ["mask"]}}]}}),
        ("sample_slides.slides, 'c'", "512", {}, {"sample_slides": {"slides": [CANVAS], "window_latent_px": 128}}),
        ("sample_slides.halo_latent_px", "quarter", {}, {"sample_slides": {"slides": [CANVAS], "halo_latent_px": 6}}),
        ("filter.use", "mask", {}, {"filter": {"use": ["mask"]}}),
        ("train_filters.segmenter", "learns label", STAIN, LOOKS | {"train_filters": {"segmenter": "timm:resnet18"}}),
        ("train_filters.segmenter", "own generator", STAIN, LOOKS | {"train_filters": {"segmenter": "denoiser"}}),
        ("train_filters.segmenter", "is not kept", STAIN, LOOKS | {"train_filters": {"segmenter": "command"}}),
        ("filter.use", "rna", {}, {"filter": {"use": ["rna"]}}),
        ("filter.use", "both towers", {}, {"filter": {"use": ["text"]}, "train_encoders": {"text": {"source": "transformers:vinid/plip"}}}),
        ("filter.use", "review", {}, {"filter": {"use": ["review"]}}),
        ("uplift.task", "mask", {}, {"uplift": {"task": "mask"}}),
        ("uplift.learner", "unet learns mask, and uplift.task is label", {}, {"uplift": {"learner": "unet"}}),
        ("uplift.seeds", "two classes", {"labels": {"source": "slide", "classes": ["a"]}}, {"plan": {"evaluation_tiles": 3}}),
        ("tile.summarise", "no-such-program", {"summarise": "no-such-program -x"}, {}),
        ("evaluate.features", "no/such", {}, {"evaluate": {"features": "no/such"}}),
    ],
)  # fmt: skip
def test_what_params_alone_tell_of_late_stages_is_said(folder, key, word, tile, sections):
    found = faults_of(None, tile, **sections)
    assert list(found) == [key] and word in found[key]


def test_int8_is_refused_where_a_study_runs_on_a_gpu(folder, monkeypatch):
    told = {"device": "auto"}, None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert faults_of(*told, sample={"precision": "int8"}) == {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = faults_of(*told, sample={"precision": "int8"})
    assert list(found) == ["sample.precision"] and "int8 is for CPUs" in found["sample.precision"]


def test_params_that_every_stage_takes_have_no_fault(folder):
    assert faults_of() == {}
    few = {"labels": {"source": "slide", "classes": ["a"]}}
    assert faults_of(None, few, plan={"evaluation_tiles": 3}, uplift={"seeds": 0}) == {}
