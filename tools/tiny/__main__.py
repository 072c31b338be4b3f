"""Make the bundled model: `python -m tools.tiny [stage …]`, all stages in turn without a name."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from joyimage import JoyImage
from joyimage.encoder import Encoder
from joyimage.mmdit import MMDiT
from joyimage.vae import WanVAE

from . import data, encoder, loop, mmdit, pack, questions, vae
from .scenes import SIZE
from .training import Recipe

QUESTIONS = 30_000  # pictures with questions
STAGES = ("data", "vae", "decoder", "encoder", "mmdit", "loop", "pack")
SMALL_SHARE = 0.05  # of each batch, in a trial


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"one of {', '.join(STAGES)}; all by default")
    parser.add_argument("--folder", type=Path, default=Path("build/tiny"), help="for data, checkpoints and curves")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="of each network instead of the recipe's, for a trial")
    parser.add_argument("--pairs", type=int, default=data.SHARD, help="pairs in a shard; few for a trial")
    parser.add_argument("--small", action="store_true", help="small networks and batches, for a trial")
    parser.add_argument("--teacher", type=Path, help="an encoder.pt whose contexts the encoder shall learn to give")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--output", type=Path, default=pack.FOLDER, help="where pack puts the weights")
    options = parser.parse_args(arguments)
    if unknown := set(options.stages) - set(STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    if options.threads:
        torch.set_num_threads(options.threads)
    run = Run(options)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for stage in options.stages or STAGES:
            getattr(run, stage)()
    finally:
        torch.use_deterministic_algorithms(before)


class Run:
    """The stages; each reads what the ones before it left in the folder."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.folder = options, options.folder
        small = options.small
        self.vae_config, self.mmdit_config = (vae.SMALL, mmdit.SMALL) if small else (vae.CONFIG, mmdit.CONFIG)
        self.encoder_sizes = encoder.SMALL if small else encoder.Sizes()
        self.trial = options.pairs < data.SHARD  # which two shards of a task are enough for
        self.shards = {task: min(2, count) if self.trial else count for task, count in data.SHARDS.items()}

    def recipe(self, whole: Recipe) -> Recipe:
        steps = self.options.steps
        whole = replace(whole, share=SMALL_SHARE if self.options.small else 1.0)
        return replace(whole, steps=steps, save_every=max(1, steps // 2)) if steps else whole

    def data(self) -> None:
        data.make(self.folder / "pairs", self.options.seed, self.shards, self.options.pairs)

    def pairs(self, task: str, shards: int | None = None) -> dict:
        found = data.read(self.folder / "pairs", task, shards or self.shards[task])
        return {k: v if k == "texts" else torch.from_numpy(v) for k, v in found.items()}

    def pictures(self) -> torch.Tensor:
        found = [p for task in self.shards for k, p in self.pairs(task).items() if k in ("target", "reference0")]
        return torch.cat(found)

    def vae(self) -> None:
        recipe, seed = self.recipe(vae.RECIPE), self.options.seed
        trained = vae.fit(self.pictures(), self.folder, recipe, self.vae_config, seed=seed)
        torch.save(trained.state_dict(), self.folder / "vae.pt")

    def decoder(self) -> None:
        recipe, seed = self.recipe(vae.DECODER), self.options.seed
        trained = vae.refine(self.load_vae("vae.pt"), self.pictures(), self.folder, recipe, seed=seed)
        torch.save(trained.state_dict(), self.folder / "refined.pt")

    def load_vae(self, name: str = "refined.pt") -> WanVAE:
        network = vae.build(self.vae_config)
        network.load_state_dict(torch.load(self.folder / name, weights_only=True))
        return network.eval().requires_grad_(False)

    def tokenizer(self) -> PreTrainedTokenizerFast:
        folder = self.folder / "tokenizer"
        if not folder.exists():
            texts = {"pictures": self.options.pairs, "pairs": self.options.pairs} if self.trial else {}
            encoder.build_tokenizer(**texts).save_pretrained(folder)
        return PreTrainedTokenizerFast.from_pretrained(folder)

    def encoder(self) -> None:
        count = min(QUESTIONS, 12 * self.options.pairs)
        asked = questions.make(count, np.random.default_rng([self.options.seed, 99]), every_object=True)
        network = encoder.build(self.tokenizer(), self.encoder_sizes)
        pairs = {task: self.pairs(task) for task in self.shards}
        source = encoder.Source(network, torch.from_numpy(asked.pixels), asked.questions, pairs)
        teacher = self.load_encoder(self.options.teacher) if self.options.teacher else None
        encoder.fit(network, source, self.folder, self.recipe(encoder.RECIPE), teacher, seed=self.options.seed)
        torch.save(network.model.state_dict(), self.folder / "encoder.pt")

    def load_encoder(self, file: Path | None = None) -> Encoder:
        network = encoder.build(self.tokenizer(), self.encoder_sizes)
        network.model.load_state_dict(torch.load(file or self.folder / "encoder.pt", weights_only=True))
        network.model.eval().requires_grad_(False)
        return network

    def mmdit(self) -> None:
        groups = self.groups()
        trained = mmdit.fit(groups, self.folder, self.recipe(mmdit.RECIPE), self.mmdit_config, seed=self.options.seed)
        torch.save(trained.state_dict(), self.folder / "mmdit.pt")

    def groups(self) -> dict:
        """Latents and contexts of one half of the pairs, which is enough, computed once and kept on disk."""
        folder = self.folder / "prepared"
        folder.mkdir(parents=True, exist_ok=True)
        autoencoder, reader = self.load_vae(), self.load_encoder()
        groups = {}
        for task in self.shards:
            file = folder / f"{task}.pt"
            if not file.exists():
                pairs = self.pairs(task, -(-self.shards[task] // 2))
                torch.save(mmdit.prepare(task, pairs, autoencoder, reader), file)
                print(f"prepared {task}", flush=True)
            groups[task] = torch.load(file, weights_only=False)
        return groups

    def load_mmdit(self) -> MMDiT:
        network = mmdit.build(self.mmdit_config)
        network.load_state_dict(torch.load(self.folder / "mmdit.pt", weights_only=True))
        return network.eval().requires_grad_(False)

    def loop(self) -> None:
        """The encoder learns on what the closed loop asks, from a model that is whole already."""
        seed, pairs = self.options.seed, self.options.pairs
        teacher = self.load_encoder(self.options.teacher)
        editor = JoyImage(self.load_mmdit(), self.load_vae(), teacher, base_size=SIZE)
        papers = loop.make(editor, self.folder / "papers", seed, min(loop.PAIRS, pairs))
        network = self.load_encoder()
        pixels, asked = loop.asked_before(min(QUESTIONS, 12 * pairs), seed)
        prompted = {task: self.pairs(task, 1) for task in self.shards}
        source = encoder.Source(network, pixels, asked, prompted)
        known = loop.Papers(source, papers)
        loop.fit(network, source, known, self.folder, self.recipe(loop.RECIPE), teacher, seed=seed)
        settling = {"name": "settling", "taught": loop.SETTLED, "prompts": loop.SETTLING_PROMPTS}
        loop.fit(network, source, known, self.folder, self.recipe(loop.SETTLING), teacher, seed=seed, **settling)
        torch.save(network.model.state_dict(), self.folder / "reasoning.pt")

    def pack(self) -> None:
        reader = self.load_encoder(self.folder / "reasoning.pt")
        networks = {"mmdit": self.load_mmdit(), "vae": self.load_vae(), "encoder": reader.model}
        pack.write(networks, reader.tokenizer, self.options.output)


if __name__ == "__main__":
    main()
