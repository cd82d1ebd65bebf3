"""Text files as somebody might have written them: real curves under shuffled, renamed and re-encoded columns."""

from __future__ import annotations

import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.curve import Curve

#: quantity -> language -> names
NAMES = {
    "distance": {
        "en": ["Distance", "Z", "Height", "Piezo", "Height (measured)", "ZSnsr", "z position", "Ramp", "Extension"],
        "de": ["Abstand", "Weg", "Höhe", "Z-Position", "Piezoweg"],
        "fr": ["Distance", "Hauteur", "Déplacement", "Position Z"],
        "es": ["Distancia", "Altura", "Desplazamiento", "Posición"],
        "zh": ["距离", "高度", "位移", "Z位置"],
        "ja": ["距離", "高さ", "変位"],
    },
    "force": {
        "en": ["Force", "F", "Vertical deflection", "Load", "force_avg", "Defl"],
        "de": ["Kraft", "Normalkraft", "F"],
        "fr": ["Force", "Force verticale"],
        "es": ["Fuerza", "Fuerza vertical"],
        "zh": ["力", "作用力", "拉力", "受力"],
        "ja": ["力", "フォース", "荷重"],
    },
    "time": {
        "en": ["Time", "t", "time", "Elapsed"],
        "de": ["Zeit"],
        "fr": ["Temps"],
        "es": ["Tiempo"],
        "zh": ["时间"],
        "ja": ["時間"],
    },
    "lateral": {
        "en": ["Lateral deflection", "Friction", "hDeflection"],
        "de": ["Reibung", "Lateral"],
        "fr": ["Friction"],
        "es": ["Fricción"],
        "zh": ["横向偏转", "摩擦力"],
        "ja": ["摩擦力", "横方向"],
    },
    "spread": {
        "en": ["F_std", "SD", "Force error"],
        "de": ["Standardabweichung"],
        "fr": ["Écart"],
        "es": ["Desviación"],
        "zh": ["标准差"],
        "ja": ["標準偏差"],
    },
    "index": {
        "en": ["Index", "#", "n", ""],
        "de": ["Nr"],
        "fr": ["Point"],
        "es": ["Punto"],
        "zh": ["序号"],
        "ja": ["番号"],
    },
    "other": {
        "en": ["Temperature (°C)", "Amplitude"],
        "de": ["Temperatur (°C)"],
        "fr": ["Température (°C)"],
        "es": ["Temperatura (°C)"],
        "zh": ["温度"],
        "ja": ["温度"],
    },
}
SIDES = {
    "en": ("Approach", "Retract"),
    "de": ("Annäherung", "Rückzug"),
    "fr": ("Approche", "Retrait"),
    "es": ("Aproximación", "Retroceso"),
    "zh": ("进针", "退针"),
    "ja": ("アプローチ", "リトラクト"),
}
ENCODINGS = {
    "en": ["utf-8", "utf-8-sig", "utf-16", "ascii", "cp1252"],
    "de": ["utf-8", "cp1252", "utf-16", "mac_roman"],
    "fr": ["utf-8", "cp1252", "utf-8-sig"],
    "es": ["utf-8", "cp1252", "utf-16"],
    "zh": ["utf-8", "gb18030", "utf-16", "utf-8-sig"],
    "ja": ["utf-8", "shift_jis", "utf-16"],
}
LENGTHS = {"nm": 1e9, "µm": 1e6, "um": 1e6, "m": 1.0}
FORCES = {"pN": 1e12, "nN": 1e9, "N": 1.0}
Table = NDArray[np.float64]


@dataclass(frozen=True)
class Mutant:
    """One file, and how it was made."""

    name: str
    content: bytes
    recipe: str


def mutant(curve: Curve, number: int, rng: random.Random) -> Mutant:
    """The curve (with approach and distance) in a text that nobody has seen."""
    return _Writer(curve, number, rng).write()


class _Writer:
    def __init__(self, curve: Curve, number: int, rng: random.Random) -> None:
        self.rng, self.number = rng, number
        self.language = rng.choice(list(SIDES))
        self.length, self.force_unit = rng.choice(list(LENGTHS)), rng.choice(list(FORCES))
        step = max(len(curve) // 1000, 1) if rng.random() < 0.5 else 1
        sign, outward = rng.choice([-1.0, 1.0]), rng.choice([-1.0, 1.0])
        assert curve.distance is not None
        z = (curve.distance - curve.distance[0]) * outward
        z = z - z.min() if rng.random() < 0.6 else z + rng.uniform(-3e-6, 3e-6)
        self.retract = (sign * curve.force[::step], z[::step])
        before = curve.approach_force
        if before is None or before.size < 64:
            before = np.random.default_rng(number).normal(0, np.std(curve.force[-200:]), 256)
        before = before[::step]
        self.approach = (sign * before, np.interp(np.linspace(1, 0, before.size), np.linspace(0, 1, z.size), z))
        self.recipe = [self.language, f"{self.length}/{self.force_unit}", f"sign {sign:+.0f}", f"z {outward:+.0f}"]

    def write(self) -> Mutant:
        layouts = ["retract", "retract", "both", "beside", "stacked", "segments", "bare"]
        layout = self.rng.choice(
            [*layouts, "backward", "shared", "grouped", "two_forces", "foreign", "liar", "stamped"]
        )
        self.recipe.append(layout)
        lines = getattr(self, f"_{layout}")()
        return self._encoded(lines)

    # ---- layouts: lists of (names, columns)

    def _retract(self) -> list[str]:
        return self._table([self._shuffled(*self.retract)])

    def _both(self) -> list[str]:
        force, z = (np.concatenate([self.approach[i], self.retract[i]]) for i in (0, 1))
        return self._table([self._shuffled(force, z)])

    def _segments(self) -> list[str]:
        force, z = (np.concatenate([self.approach[i], self.retract[i]]) for i in (0, 1))
        names, columns = self._shuffled(force, z)
        counts = (self.approach[0].size, self.retract[0].size)
        words = SIDES[self.language] if self.rng.random() < 0.7 else ("0", "1")
        label = [word for word, count in zip(words, counts, strict=True) for _ in range(count)]
        at = self.rng.randrange(len(columns) + 1)
        names.insert(at, "Segment")
        columns.insert(at, label)
        return self._table([(names, columns)])

    def _beside(self) -> list[str]:
        names, columns = [], []
        pairs = [
            (side, *signal) for side, signal in zip(SIDES[self.language], (self.approach, self.retract), strict=True)
        ]
        quantities = self.rng.sample(["distance", "force"], 2)
        is_by_quantity = self.rng.random() < 0.4
        cells = [
            (side, quantity, z if quantity == "distance" else force)
            for side, force, z in pairs
            for quantity in quantities
        ]
        if is_by_quantity:
            cells.sort(key=lambda cell: cell[1])
        word = {quantity: self._word(quantity) for quantity in quantities}
        for side, quantity, samples in cells:
            names.append(f"{side} {self._with_unit(word[quantity], quantity)}")
            columns.append(self._numbers(samples, quantity))
        return self._table([(names, columns)])

    def _stacked(self) -> list[str]:
        blocks = []
        word = {quantity: self._word(quantity) for quantity in ("distance", "force")}
        order = self.rng.sample(["distance", "force"], 2)
        for force, z in (self.approach, self.retract):
            signals = {"distance": z, "force": force}
            names = [self._with_unit(word[quantity], quantity) for quantity in order]
            blocks.append((names, [self._numbers(signals[quantity], quantity) for quantity in order]))
        return self._table(blocks, headings=list(SIDES[self.language]) if self.rng.random() < 0.8 else ["", ""])

    def _bare(self) -> list[str]:
        force, z = self.retract
        if self.rng.random() < 0.5:
            force, z = (np.concatenate([self.approach[i], self.retract[i]]) for i in (0, 1))
        columns = [self._numbers(z, "distance"), self._numbers(force, "force")]
        if self.rng.random() < 0.4:
            columns.reverse()
        if self.rng.random() < 0.2:
            columns = [self._numbers(self.retract[0], "force")]
        return self._table([([], columns)])

    def _backward(self) -> list[str]:
        """Sorted from far to near."""
        return self._table([self._shuffled(*(samples[::-1] for samples in self.retract))])

    def _shared(self) -> list[str]:
        """One distance for both sides, which stand beside each other in its order."""
        force, z = self.retract
        approach = np.interp(
            np.linspace(0, 1, z.size), np.linspace(0, 1, self.approach[0].size), self.approach[0][::-1]
        )
        order = slice(None, None, self.rng.choice([1, -1]))
        sides = [f"{side} {self._with_unit(self._word('force'), 'force')}" for side in SIDES[self.language]]
        columns = {self._with_unit(self._word("distance"), "distance"): self._numbers(z[order], "distance")}
        columns |= {sides[0]: self._numbers(approach[order], "force"), sides[1]: self._numbers(force[order], "force")}
        names = self.rng.sample(list(columns), len(columns))
        return self._table([(names, [columns[name] for name in names])])

    def _grouped(self) -> list[str]:
        """The sides in a line of their own above the names, each over its first column."""
        order = self.rng.sample(["distance", "force"], 2)
        names = [self._with_unit(self._word(quantity), quantity) for quantity in order] * 2
        columns = [
            self._numbers(z if quantity == "distance" else force, quantity)
            for force, z in (self.approach, self.retract)
            for quantity in order
        ]
        approach, retract = SIDES[self.language]
        return self._table([(names, columns)], above=[approach, "", retract, ""])

    def _two_forces(self) -> list[str]:
        force, z = self.retract
        other = np.random.default_rng(self.number).normal(0, 1e-11, force.size)
        signals = {"distance": z, "force": force, "force ": other}
        order = self.rng.sample(list(signals), 3)
        names = [self._with_unit(self._word(quantity.strip()), quantity.strip()) for quantity in order]
        return self._table([(names, [self._numbers(signals[quantity], quantity.strip()) for quantity in order])])

    def _foreign(self) -> list[str]:
        """Names in a language that nobody foresaw."""
        force, z = self.retract
        names = self.rng.choice([["Mesafe", "Kuvvet"], ["Расстояние", "Сила"], ["Etäisyys", "Voima"], ["거리", "힘"]])
        columns = [self._numbers(z, "distance"), self._numbers(force, "force")]
        if self.rng.random() < 0.5:
            names, columns = [*names[::-1], "Время"], [*columns[::-1], self._numbers(np.arange(z.size) / 1e3, "time")]
        return self._table([(list(names), columns)])

    def _liar(self) -> list[str]:
        """Names of force and distance changed."""
        force, z = self.retract
        names = [self._word("force"), self._word("distance")]
        return self._table([(names, [self._numbers(z, "distance"), self._numbers(force, "force")])])

    def _stamped(self) -> list[str]:
        """A column of times of day."""
        names, columns = self._shuffled(*self.retract)
        stamps = [f"12:{at // 60000 % 60:02d}:{at // 1000 % 60:02d}.{at % 1000:03d}" for at in range(len(columns[0]))]
        at = self.rng.randrange(len(columns) + 1)
        names.insert(at, self._word("time"))
        columns.insert(at, stamps)
        return self._table([(names, columns)])

    def _shuffled(self, force: Table, z: Table) -> tuple[list[str], list[list[str]]]:
        noise = np.random.default_rng(self.number)
        spare = {
            "time": np.arange(force.size) / 2000.0,
            "lateral": noise.normal(0, 1e-11, force.size) + 0.2 * np.abs(force),
            "spread": np.abs(noise.normal(1e-11, 1e-12, force.size)),
            "index": np.arange(force.size),
            "other": noise.normal(22, 0.1, force.size),
        }
        chosen = ["distance", "force", *self.rng.sample(list(spare), self.rng.choice([0, 0, 1, 1, 2, 3]))]
        self.rng.shuffle(chosen)
        samples = {"distance": z, "force": force, **spare}
        names = [self._with_unit(self._word(quantity), quantity) for quantity in chosen]
        self.recipe.append(" ".join(names))
        return names, [self._numbers(samples[quantity], quantity) for quantity in chosen]

    # ---- words and numbers

    def _word(self, quantity: str) -> str:
        return self.rng.choice(NAMES[quantity][self.language])

    def _with_unit(self, name: str, quantity: str) -> str:
        unit = {"distance": self.length, "force": self.force_unit, "lateral": self.force_unit, "time": "s"}.get(
            quantity
        )
        unit = self.force_unit if quantity == "spread" else unit
        if unit is None:
            return name
        return self.rng.choice(["{} ({})", "{} [{}]", "{}({})", "{}_{}", "{} / {}"]).format(name, unit)

    def _numbers(self, samples: Table, quantity: str) -> list[str]:
        factor = {"distance": LENGTHS[self.length], "force": FORCES[self.force_unit]}.get(quantity, 1.0)
        if quantity in ("lateral", "spread"):
            factor = FORCES[self.force_unit]
        if quantity == "index":
            return [f"{int(value)}" for value in samples]
        is_small = factor == 1.0 and quantity in ("distance", "force", "lateral", "spread")
        style = "{:.6e}" if is_small else self.rng.choice(["{:.6g}", "{:.4f}", "{:.6e}"])
        if style == "{:.4f}" and self.length in ("µm", "um") and quantity == "distance":
            style = "{:.6f}"
        if style == "{:.4f}" and self.force_unit == "nN":
            style = "{:.6f}"
        return [style.format(value * factor) for value in samples]

    def _table(
        self,
        blocks: Sequence[tuple[list[str], list[list[str]]]],
        headings: Sequence[str] = (),
        above: Sequence[str] = (),
    ) -> list[str]:
        rng = self.rng
        decimal = "," if self.language in ("de", "fr", "es") and rng.random() < 0.5 else "."
        delimiter = rng.choice(["\t", ";"] if decimal == "," else ["\t", ";", ",", ", ", "  "])
        is_quoted = rng.random() < 0.15 and delimiter != "  "
        is_fortran = rng.random() < 0.08
        if delimiter == "  ":
            blocks = [([name.replace(" ", "_") for name in names], columns) for names, columns in blocks]
        self.recipe += [f"delimiter {delimiter!r} decimal {decimal}", "quoted" * is_quoted, "fortran" * is_fortran]
        lines: list[str] = []
        if rng.random() < 0.3:
            lines += rng.choice(
                [
                    ["# exported by a program"],
                    ["Sample: DNA", "Date: 2026-11-20", ""],
                    ["0.042"],
                    ["[Header]", "k = 0.03 N/m"],
                ]
            )
        has_units_row = rng.random() < 0.2
        for place, (names, columns) in enumerate(blocks):
            if headings and headings[place]:
                lines.append(headings[place])
            if above:
                lines.append(delimiter.join(above) if delimiter.strip(" ") else " ".join(filter(None, above)))
            if names:
                lines += self._header(names, delimiter, has_units_row=has_units_row, is_quoted=is_quoted)
            longest = max(map(len, columns))
            for row in range(longest):
                cells = [column[row] if row < len(column) else "" for column in columns]
                if decimal == ",":
                    cells = [cell.replace(".", ",") for cell in cells]
                if is_fortran:
                    cells = [cell.replace("e", "D") if cell[:1] in "-0123456789" else cell for cell in cells]
                if is_quoted:
                    cells = [f'"{cell}"' for cell in cells]
                lines.append(delimiter.join(cells).rstrip(" "))
            if place + 1 < len(blocks) and rng.random() < 0.5:
                lines.append("")
        if rng.random() < 0.1:
            lines.append(rng.choice(["End of data", "# end", "mean force\t12.3", "---"]))
        return lines

    def _header(self, names: list[str], delimiter: str, *, has_units_row: bool, is_quoted: bool) -> list[str]:
        units = [name.rsplit("(", 1)[-1].rstrip(")") if name.endswith(")") and "(" in name else None for name in names]
        if has_units_row and all(units):
            stems = [name.rsplit("(", 1)[0].strip() for name in names]
            rows = [stems, [unit or "" for unit in units]]
        else:
            rows = [names]
        if delimiter == "  " and any(not cell for row in rows for cell in row):
            rows = [[cell or "n" for cell in row] for row in rows]
        return [delimiter.join(f'"{cell}"' if is_quoted else cell for cell in row) for row in rows]

    def _encoded(self, lines: list[str]) -> Mutant:
        rng = self.rng
        end = rng.choice(["\n", "\r\n", "\n", "\r"])
        text = end.join(lines) + (end if rng.random() < 0.9 else "")
        encoding = rng.choice(ENCODINGS[self.language])
        try:
            content = text.encode(encoding)
        except UnicodeEncodeError:
            encoding = "utf-8"
            content = text.encode(encoding)
        suffix = rng.choice([".txt", ".csv", ".dat", ".tsv", ".asc", ""])
        self.recipe += [encoding, repr(end)]
        if rng.random() < 0.08:
            content, suffix = gzip.compress(content, 1), (suffix or ".txt") + ".gz"
        return Mutant(f"mutant-{self.number:05d}{suffix}", content, " | ".join(filter(None, self.recipe)))
