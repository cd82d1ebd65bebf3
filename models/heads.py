"""Other heads for a network: from a curve's embedding over its features to a logit, learned from a few labelled curves.

An embedding is all that the one logit is made from. Curves that look alike to the network lie together in it, labelled
or not; so a few dozen labels and many unlabelled curves can say what another logit should be.

A linear head on linear features is just another last layer: ``fold`` puts it into the network, which then is served
like any other, at the same speed. What is not linear (a support vector machine with a round kernel, the codes of an
autoencoder, the responsibilities of clusters) ranks curves and becomes no model.
"""

from __future__ import annotations

import copy
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.anatomy import shapes
from models.bundle import MAX_HEADER_BYTES, MAX_WEIGHT_BYTES
from models.network import ResNet18, load
from models.raster import RasterProfile, coverage

Vectors = NDArray[np.float64]  # (N, D)
Labels = NDArray[np.bool_]
Weights = NDArray[np.float64]

#: How long the network's own logit is beside all channels together: the penalty of a head on it is nine times lighter.
LEAN = 3.0

#: A channel that was nearly silent among the curves fitted on must not shout at the first one where it speaks.
QUIETEST = 0.05  # of the largest spread of any channel

#: Inverse strength of the penalty on vectors of mean squared length 1. Chosen on simulated laboratories with 8 to 128
#: labels, in some of which every seventh label was wrong: 10 learns a new meaning of "event" sooner, but loses up to
#: 0.04 of AUC to wrong labels where the model was right already; 1 loses less than 0.01.
STRENGTH = 1.0

HIDDEN = 64
STEPS, BATCH, RATE = 400, 64, 2e-3  # of the autoencoder

WIDTH = 64  # of every published ResNet18
#: What torchvision's weights expect of red, green and blue in 0…1 (He et al. 2016; torchvision, "IMAGENET1K_V1").
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_CONVERT = (
    "python -c \"import torch; from safetensors.torch import save_file; save_file(torch.load('{name}', "
    "weights_only=True), '{stem}.safetensors')\""
)


def embed(
    network: ResNet18, edges: NDArray[np.float32], profile: RasterProfile, batch: int = 64
) -> NDArray[np.float32]:
    """(N, 2, W) envelopes -> (N, 8 width) float32, the pooled features of the last layer.

    ``fc`` of a row is the logit of that curve.
    """
    network.eval()
    parts = [np.zeros((0, network.fc.in_features), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(edges), batch):
            images = torch.from_numpy(coverage(edges[start : start + batch], profile))
            features = network.forward_features(images.contiguous(memory_format=torch.channels_last))
            parts.append(features.mean((2, 3)).numpy())
    return np.concatenate(parts)


class Features(Protocol):
    """(N, D) embedded curves -> (N, K): told in fewer numbers, learned from curves that nobody has labelled.

    Vectors of mean squared length 1, so that a head's strength means the same on all of them.
    """

    def apply(self, vectors: Vectors) -> Vectors: ...


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """Features that are a matrix and an offset."""

    matrix: NDArray[np.float64]  # (K, D)
    offset: NDArray[np.float64]  # (K,)

    def apply(self, vectors: Vectors) -> Vectors:
        return vectors @ self.matrix.T + self.offset

    def beside(self, other: Linear) -> Linear:
        """Both, one after the other: (N, K + L)."""
        return Linear(np.concatenate((self.matrix, other.matrix)), np.concatenate((self.offset, other.offset)))


def standardise(vectors: Vectors) -> Linear:
    """Each channel less its mean, by its spread."""
    spread = vectors.std(axis=0)
    spread = np.maximum(spread, max(QUIETEST * float(spread.max(initial=0.0)), 1e-9))
    matrix = np.diag(1 / spread / np.sqrt(spread.size))
    return Linear(matrix, -(matrix @ vectors.mean(axis=0)))


def own_logit(network: ResNet18, vectors: Vectors) -> Linear:
    """What the network itself says, as one more feature: with few labels it is the best there is to lean on."""
    weight, bias = network.fc.weight.detach().double().numpy(), network.fc.bias.detach().double().numpy()
    logits = vectors @ weight[0] + bias[0]
    scale = max(float(logits.std()), 1e-9) / LEAN
    return Linear(weight / scale, (bias - logits.mean()) / scale)


def principal(vectors: Vectors, count: int = 16) -> Linear:
    """The ``count`` directions in which these curves differ most (PCA of the standardised channels; scikit-learn)."""
    from sklearn.decomposition import PCA  # an extra; paid for only where it is used

    standard = standardise(vectors)
    found = PCA(min(count, len(vectors) - 1, vectors.shape[1]), svd_solver="full").fit(standard.apply(vectors))
    scale = max(float(np.sqrt(found.explained_variance_.sum())), 1e-9)
    turn = np.asarray(found.components_, np.float64) / scale
    return Linear(turn @ standard.matrix, turn @ (standard.offset - found.mean_))


@dataclass(frozen=True, slots=True, eq=False)
class LinearHead:
    """(N, K) features -> (N,) logits."""

    weight: NDArray[np.float64]  # (K,)
    bias: float

    def score(self, features: Vectors) -> NDArray[np.float64]:
        return features @ self.weight + self.bias


def logistic(
    features: Vectors, labels: Labels, weights: Weights | None = None, strength: float = STRENGTH
) -> LinearHead:
    """Logistic regression, both classes equally heavy. ValueError when one class is missing."""
    from sklearn.linear_model import LogisticRegression

    _check(labels)
    found = LogisticRegression(C=strength, class_weight="balanced", max_iter=2000)
    return _plain(found.fit(features, labels, sample_weight=weights))


def support(features: Vectors, labels: Labels, weights: Weights | None = None) -> LinearHead:
    """The linear support vector machine, both classes equally heavy. ValueError when one class is missing."""
    from sklearn.svm import LinearSVC

    _check(labels)
    # liblinear penalises the intercept too, unless it is scaled; its random numbers only order the work
    found = LinearSVC(C=STRENGTH, class_weight="balanced", max_iter=20_000, intercept_scaling=10.0, random_state=0)
    return _plain(found.fit(features, labels, sample_weight=weights))


#: Heads that become a model's last layer, by name.
HEADS: dict[str, Callable[[Vectors, Labels, Weights | None], LinearHead]] = {"logistic": logistic, "svm": support}


def round_support(features: Vectors, labels: Labels) -> Callable[[Vectors], NDArray[np.float64]]:
    """The support vector machine with a Gaussian kernel: a function that ranks (N, K) features."""
    from sklearn.svm import SVC

    _check(labels)
    found: Any = SVC(C=STRENGTH, gamma="scale", class_weight="balanced").fit(features, labels)
    return lambda vectors: np.asarray(found.decision_function(vectors), np.float64)


def fold(network: ResNet18, features: Linear, head: LinearHead) -> ResNet18:
    """A network whose logit is ``head.score(features.apply(embedding))``, up to a scale: same body, other last layer.

    The scale keeps the layer no longer than the one it replaces, so that the rounding of a body in half precision moves
    the logit no further than before; calibration makes up for it.
    """
    folded = copy.deepcopy(network)
    weight, bias = head.weight @ features.matrix, float(head.weight @ features.offset) + head.bias
    longest = float(network.fc.weight.detach().norm()) or 1.0  # 1 where there was none
    scale = min(1.0, longest / max(float(np.linalg.norm(weight)), 1e-12))
    with torch.no_grad():
        folded.fc.weight.copy_(torch.from_numpy(scale * weight[None]))
        folded.fc.bias.fill_(scale * bias)
    return folded


def _check(labels: Labels) -> None:
    if not labels.any() or labels.all():
        raise ValueError("a head needs curves with and without an event")


def _plain(found: Any) -> LinearHead:
    return LinearHead(np.asarray(found.coef_[0], np.float64), float(found.intercept_[0]))


class Autoencoder(nn.Module):
    """(N, D) embedded curves -> (N, K) codes by ``apply``, few numbers from which it can say the curve back.

    Two layers in, two out, trained on curves that nobody has labelled.
    """

    def __init__(self, inputs: int, codes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, codes))
        self.decoder = nn.Sequential(nn.Linear(codes, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, inputs))
        self.matrix, self.offset, self.centre, self.scale = (
            nn.Parameter(torch.zeros(shape), requires_grad=False)
            for shape in ((inputs, inputs), (inputs,), (codes,), (1,))
        )  # what the vectors are standardised with before, and the codes after

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) standardised -> (B, D) said back."""
        return self.decoder(self.encoder(x))  # type: ignore[no-any-return]  # a torch module returns Any

    def apply(self, vectors: Vectors) -> Vectors:  # type: ignore[override]  # torch has another apply
        """(N, D) -> (N, K), of mean squared length 1 on the curves that it was fitted on."""
        with torch.inference_mode():
            codes = (self.encoder(self._standard(vectors)) - self.centre) / self.scale
        return codes.double().numpy()  # type: ignore[no-any-return]  # as above

    def _standard(self, vectors: Vectors) -> Tensor:
        return torch.from_numpy(vectors).float() @ self.matrix.T + self.offset

    def save(self, file: Path) -> None:
        """As safetensors."""
        save_file(self.state_dict(), file)

    @classmethod
    def load(cls, file: Path) -> Autoencoder:
        """The inverse of :meth:`save`; SafetensorError, KeyError or RuntimeError for a file that is none."""
        tensors = load_file(file)
        codes, inputs = tensors["centre"].numel(), tensors["offset"].numel()
        made = cls(inputs, codes)
        made.load_state_dict(tensors)
        return made


def encode(vectors: Vectors, codes: int = 16, seed: int = 1) -> Autoencoder:
    """Fit on (N, D) by AdamW; the same vectors and seed give the same network, and no other randomness is touched."""
    standard = standardise(vectors)
    wide = Linear(standard.matrix * np.sqrt(vectors.shape[1]), standard.offset * np.sqrt(vectors.shape[1]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = Autoencoder(vectors.shape[1], codes)
        with torch.no_grad():
            made.matrix.copy_(torch.from_numpy(wide.matrix))
            made.offset.copy_(torch.from_numpy(wide.offset))
        _train(made, made._standard(vectors))
    with torch.no_grad():
        found = made.encoder(made._standard(vectors))
        made.centre.copy_(found.mean(0))
        made.scale.copy_((found - made.centre).square().sum(1).mean().sqrt().clamp_min(1e-6))
    return made


def _train(made: Autoencoder, x: Tensor) -> None:
    learned = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learned, RATE, weight_decay=1e-2)
    for _ in range(STEPS):
        chosen = x[torch.randint(len(x), (min(BATCH, len(x)),))]
        loss = (made(chosen) - chosen).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()


@dataclass(frozen=True, slots=True, eq=False)
class SoftKMeans:
    """(N, D) embedded curves -> (N, K): how much a curve is of each of K kinds. A row sums to 1.

    A mixture of round Gaussians of which each learns its own width and weight (MacKay 2003, Information Theory,
    Inference and Learning Algorithms, algorithm 22.2), on the principal components.
    """

    components: Linear
    mixture: Any  # sklearn.mixture.GaussianMixture

    def apply(self, vectors: Vectors) -> Vectors:
        return np.asarray(self.mixture.predict_proba(self.components.apply(vectors)), np.float64)


def cluster(vectors: Vectors, count: int = 16, seed: int = 1) -> SoftKMeans:
    """Fit on (N, D); at most a cluster for every four curves. The same vectors and seed give the same clusters."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    components = principal(vectors)
    mixture = GaussianMixture(
        max(2, min(count, len(vectors) // 4)), covariance_type="spherical", reg_covar=1e-4, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # clusters that still move a little are as good
        mixture.fit(components.apply(vectors))
    return SoftKMeans(components, mixture)


class BadWeights(Exception):
    """This file holds no ResNet18 of torchvision; the message is one line and says what to do."""


def read_imagenet(file: Path) -> ResNet18:
    """A network of width 64 with the weights of ``file`` (.safetensors with torchvision's names); fc is zero.

    BadWeights for a pickle (.pth), which could run anything when opened and is never loaded, and for any tensor
    that is missing, of another shape, not finite, or not ResNet18's; the first such is named.
    """
    tensors = _read(file)
    if problem := _difference(tensors):
        raise BadWeights(f"{file}: is no ResNet18 of torchvision: {problem}")
    return adapt(tensors)


def adapt(tensors: Mapping[str, Tensor]) -> ResNet18:
    """Tensors of torchvision (conv1.weight (64, 3, 7, 7)) -> the same function of a picture in grey, without its fc.

    The stem's kernels are summed over their three input channels: a picture in grey has the same value in red, green
    and blue, convolution is linear, and so the summed kernel answers exactly as the three did. Before the sum each is
    divided by its channel's standard deviation, and what the channel means took away goes into the first batch norm:
    the network was taught on (x - mean) / std, and is here shown x in 0…1. What differs is the rim of three pixels
    that the stem pads: black here, mid-grey there. The last layer knows a thousand kinds of photograph and none of
    curve, so it starts at zero.
    """
    weights = {name: tensors[name].float() for name in shapes(WIDTH) if not name.startswith("fc.")}
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    stem = weights["conv1.weight"] / std
    weights["conv1.weight"] = stem.sum(1, keepdim=True)
    weights["bn1.running_mean"] = weights["bn1.running_mean"] + (stem * mean).sum((1, 2, 3))
    weights |= {name: torch.zeros(shape) for name, shape in shapes(WIDTH).items() if name.startswith("fc.")}
    return load(WIDTH, weights)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise BadWeights(f"{file}: no such file; name a .safetensors file with torchvision's ResNet18")
    if file.stat().st_size > MAX_WEIGHT_BYTES:
        raise BadWeights(f"{file}: is larger than any ResNet18 ({MAX_WEIGHT_BYTES >> 20} MB)")
    data = file.read_bytes()
    if data[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):  # zip of a pickle, or a bare one
        convert = _CONVERT.format(name=file.name, stem=file.stem)
        raise BadWeights(f"{file}: is a pickle and is not opened; where you trust it, convert it: {convert}")
    header_bytes = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 1 << 63
    if header_bytes > min(MAX_HEADER_BYTES, len(data)):
        raise BadWeights(f"{file}: is no safetensors file; nothing of it was loaded")
    try:
        return load_tensors(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BadWeights(f"{file}: is no safetensors file: {error}") from None


def _difference(tensors: Mapping[str, Tensor]) -> str | None:
    """What is first wrong, in the order of the layers; the last layer and the counters of training are free."""
    wanted = {name: shape for name, shape in shapes(WIDTH).items() if not name.startswith("fc.")}
    wanted["conv1.weight"] = (WIDTH, 3, 7, 7)
    for name, shape in wanted.items():
        found = tensors.get(name)
        if found is None:
            return f"{name} is missing"
        if tuple(found.shape) != shape:
            return f"{name} is {tuple(found.shape)}, not {shape}"
        if not found.is_floating_point() or not bool(torch.isfinite(found.float().half()).all()):
            return f"{name} is not finite in half precision, in which models are kept"
        if name.endswith(".running_var") and bool((found.float() < 0).any()):
            return f"{name} is negative, and variances are not"
    others = (name for name in tensors if name not in wanted)
    strange = [name for name in others if not name.startswith("fc.") and not name.endswith(".num_batches_tracked")]
    return f"{strange[0]} does not belong to it" if strange else None
