"""Steps of the libraries that people train with, each with a cause that is known."""

from __future__ import annotations

import lightning
import pytest
import torch
import transformers
from torch.utils.data import DataLoader, TensorDataset

from seedscope import diagnose, seeded

pytestmark = [
    pytest.mark.usefixtures("the_outer_state_is_intact"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
]


@pytest.fixture
def bert():
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    with seeded(1):
        return transformers.BertForSequenceClassification(config)


def test_a_step_of_the_trainer(bert, tmp_path):
    arguments = transformers.TrainingArguments(
        str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True
    )
    with seeded(1):
        trainer = transformers.Trainer(bert, arguments)
        trainer.current_gradient_accumulation_steps = 1  # as in its loop
        batch = {"input_ids": torch.randint(0, 50, (4, 12)), "labels": torch.tensor([0, 1, 0, 1])}

    def step(model, batch):
        return trainer.training_step(model, dict(batch))

    report = diagnose(step, bert, batch, seed=3)
    found = report.first_divergence
    assert report.cause == "state left from the run before"
    assert ".grad" in report.because
    assert found.forward, "the first difference is in the backward"
    assert "model" in found.module or found.module == ""
    assert [one.helps for one in report.remedies] == [True]

    report = diagnose(step, bert, batch, seed=3, restore=[bert])
    assert report.reproducible, report
    assert report.sources["torch"].startswith("aten.")
    assert "(Dropout)" in report.sources["torch"]


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Linear(4, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(),
            torch.nn.Linear(8, 1),
        )

    def training_step(self, batch, index):
        return self.network(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def test_the_training_steps_of_lightning(tmp_path):
    with seeded(1):
        module = Module()
        data = TensorDataset(torch.randn(12, 4))

    def fit(module):
        trainer = lightning.Trainer(
            default_root_dir=tmp_path,
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(data, batch_size=4, shuffle=True))
        return module

    report = diagnose(fit, module, seed=3)
    found = report.first_divergence
    assert report.cause == "state left from the run before"
    assert "module.network" in report.because
    assert "module.network.0 (Linear)" in found.module
    assert [one.helps for one in report.remedies] == [True]
    assert diagnose(fit, module, seed=3, restore=[module]).reproducible


def test_a_step_of_torchvisions_detection():
    detection = pytest.importorskip("torchvision.models.detection")
    with seeded(1):
        model = detection.fasterrcnn_mobilenet_v3_large_320_fpn(
            weights=None, weights_backbone=None, num_classes=3
        )
        images = [torch.rand(3, 160, 160) for _ in range(2)]
    boxes = torch.tensor([[10.0, 10.0, 60.0, 80.0]])
    targets = [{"boxes": boxes, "labels": torch.tensor([1])} for _ in images]

    def step(model):
        losses = model(images, targets)
        sum(losses.values()).backward()
        return losses

    report = diagnose(step, model, seed=3)
    assert report.cause == "state left from the run before"
    report = diagnose(step, model, seed=3, restore=[model], deterministic=True)
    assert report.reproducible, report
