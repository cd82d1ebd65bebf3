"""What a column is, by its name: quantity, unit and side of the curve, in the languages that exports are written in.

``Defl_pN_Rt``, ``Retract Z-Sense(nm)``, ``Kraft [nN]``, ``力 (pN)``, ``vDeflection``, ``F_std``. A name that says
nothing known is ``None`` as a quantity: it is then for the numbers to tell, and that is told.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from models.curve import ForceUnit

Quantity = Literal[
    "force", "deflection", "distance", "lateral", "spread", "time", "index", "segment", "curve", "file", "other"
]
Side = Literal["approach", "retract", "pause"]
_SIDES: tuple[Side, ...] = ("approach", "retract", "pause")

#: Dimension -> units as written, with the factor to SI. "?" is known not to be a force, length, voltage or time.
_UNIT_TABLE: dict[str, dict[float, str]] = {
    "N": {1e-12: "pN piconewton 皮牛", 1e-9: "nN nanonewton 纳牛", 1e-6: "uN μN 微牛", 1e-3: "mN", 1.0: "N newton 牛"},
    "m": {
        1e-12: "pm",
        1e-10: "Å angstrom ang",
        1e-9: "nm nanometer nanometers 纳米 ナノメートル",
        1e-6: "um μm micron microns 微米",
        1e-3: "mm",
        1.0: "m meter",
    },
    "V": {1.0: "V volt volts 伏", 1e-3: "mV", 1e-6: "μV uV"},
    "s": {1.0: "s sec 秒", 1e-3: "ms", 1e-6: "us μs", 60.0: "min"},
    "?": {
        1.0: """
            °C ℃ K degC C % Hz kHz MHz deg ° Pa kPa MPa GPa A nA pA N/m nN/nm pN/nm nm/V nm/s um/s μm/s m/s nN/s pN/s dB
            J aJ fJ nJ eV m^2/Hz m²/Hz nm^2/Hz pm^2/Hz V^2/Hz V²/Hz V2/Hz m2/Hz nm2/Hz pm2/Hz N^2/Hz pN^2/Hz V/√Hz
            m/√Hz nm/√Hz pm/√Hz fm/√Hz pN/√Hz V/sqrt(Hz) m/sqrt(Hz) nm/sqrt(Hz) pm/sqrt(Hz) fm/sqrt(Hz) nm/rtHz
            pm/rtHz fm/rtHz m/rtHz V/rtHz
        """
    },
}
_UNITS = {
    unit: (dimension, factor)
    for dimension, known in _UNIT_TABLE.items()
    for factor, units in known.items()
    for unit in units.split()
}
_UNITS_FOLDED = {unit.casefold(): unit for unit in reversed(_UNITS)}


def _folded(text: str) -> str:
    """Lower case, without accents: ``Höhe`` and ``hohe`` are one word."""
    apart = unicodedata.normalize("NFKD", text.casefold().replace("ß", "ss"))
    return "".join(character for character in apart if not unicodedata.combining(character))


#: What a word of a name says, in the languages of the labs whose exports were seen or reported.
_VOCABULARY = {
    "force": """
        force forces f fz fn kraft kraefte kräfte normalkraft fuerza forza força load
        pullingforce 力 作用力 受力 拉力 载荷 荷重 力信号 フォース 引力
    """,
    "deflection": """
        deflection deflections defl dfl def vdeflection vdefl bending cantilever photodiode
        psd auslenkung verbiegung durchbiegung ablenkung biegung deflexion flexion déflexion
        deflexión flexión deflessione 偏转 偏转量 挠度 偏折 弯曲 弯曲量 变形量
        たわみ 撓み たわみ量 カンチレバー たわみ信号
    """,
    "distance": """
        distance dist z height heights zsnsr zsensor zsense sensor sense snsr piezo zpiezo
        ramp position pos lvdt raw extension separation sep tss tsd displacement displ stage
        scanner travel elongation stretch tipsample indentation indent delta
        δ length länge longueur longitud 长度 長さ drive zdrive
        headheight abstand weg entfernung distanz hohe hoehe höhe verschiebung trennung
        ausdehnung dehnung auszug piezoweg hauteur déplacement deplacement séparation
        allongement éloignement altura distancia desplazamiento separación posición posicion
        extensión alargamiento distanza altezza spostamento distância 距离 位移 高度 伸长 分离 位置 间距
        针尖样品距离 压电 伸展 距離 高さ 変位 伸び 間隔 探針試料間距離 ピエゾ
    """,
    "lateral": """
        lateral lat hdeflection hdefl horizontal friction frictional lfm torsion torsional
        lateraldeflection seitlich reibung reibungskraft torsionale latéral laterale
        fricción friccion frottement 横向 侧向 摩擦 摩擦力 水平 横方向 ねじれ 水平方向
    """,
    "spread": """
        std sd stdev stddev sem err error errors sigma variance var uncertainty rms
        deviation fehler abweichung standardabweichung unsicherheit écart ecart erreur
        desviación desviacion incertidumbre errore 标准差 误差 誤差 標準偏差
    """,
    "time": """
        time t timestamp elapsed seconds zeit zeitstempel uhrzeit temps tiempo tempo 时间 時間
        時刻 datum date fecha 日期 日付
    """,
    "index": """
        index idx no nr num number n i point points pt sample samples row unnamed punkt
        nummer punto numéro numero 点 序号 编号 番号 点数 # line zeile ligne
    """,
    "segment": """
        segment segments seg phase branch state abschnitt segmento richtung direction 段 分段
        方向 阶段 区間 セグメント
    """,
    "curve": """
        curve curves cycle cycles pull pulls repeat repetition repeats id kurve zyklus wiederholung courbe ciclo
        curva 曲线 循环 曲線 サイクル
    """,
    "file": """
        file files filename path datei dateiname fichier archivo 文件 文件名 ファイル ファイル名
    """,
    "other": """
        temperature temp humidity amplitude amp current sum bias voltage speed velocity
        quality intensity pressure power laser gain setpoint frequency freq feuchte
        feuchtigkeit temperatur luftdruck température humidité temperatura 温度 湿度 电流 振幅 频率 速度
        電流 周波数 auxiliary aux stiffness modulus young adhesion dissipation count counts event
        events comment comments note notes energy work slope r2 chi2
    """,
    "approach": """
        approach appr app approaching extend extending ex ext trace forward fwd fw advance
        engage loading push pushing in annaherung annäherung annaeherung anfahrt hinweg
        vorwärts vorwaerts hin approche aller acercamiento aproximación aproximacion ida
        avvicinamento 进针 接近 逼近 前进 下针 压入 アプローチ 往路 接近時 押し込み 押込
    """,
    "retract": """
        retract retr ret rt retraction retracting withdraw withdrawal withdrawing retrace
        backward backwards bwd bw back unload unloading pulling out rückzug ruckzug rueckzug
        rückweg rueckweg rückwärts zurück zurueck abziehen retrait retour retirada
        retracción retraccion retroceso vuelta alejamiento ritiro 退针 回退 撤回 后退 缩回 抬起 回缩 拉伸 离开
        リトラクト 引き離し 復路 離脱 引き離し時 引離 リトレース
    """,
    "pause": """
        pause dwell hold holding wait halten warten pausa 停留 保持 待機 一時停止
    """,
    "vertical": """
        vertical v vert normal vertikal verticale 垂直 垂直方向 法向
    """,
}
_WORDS = {_folded(word): meaning for meaning, words in _VOCABULARY.items() for word in words.split()}
#: Letters that mean little: they give way to any other name.
_WEAK: dict[str, Quantity] = {"x": "distance", "y": "force", "d": "deflection"}
_PHOTODIODE = (["t", "b"], ["a", "b"])  # top - bottom: its difference signal
#: Words of a side only beside a column that is said to be the retract; else an extension, or a numbered trace.
_SIDES_BESIDE_A_RETRACT = frozenset({"ex", "ext", "trace", "in"})
_SIDES_BY_THEMSELVES = frozenset({"in", "out"})  # not in a sentence
#: Words of a distance that say "by the sensor" or "unprocessed" beside another quantity.
_ADJECTIVES = frozenset({"raw", "sensor", "sense", "snsr", "drive", "stage", "scanner", "piezo", "tip", "pos"})
_BRACKET = re.compile(r"[(\[{<]([^()\[\]{}<>]*)[)\]}>]")
_PARTS = re.compile(r"[\s_\-:,.;|*'\"&+/\\()\[\]{}<>]+")
_CAMEL = re.compile(
    r"(?<=[a-zäöüµμ0-9])(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=[a-z])(?=[\u3040-\u9fff])"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Unit:
    """``dimension`` is N, m, V, s or "?" (known, and none of these); times ``factor`` it is SI."""

    dimension: str
    factor: float

    is_frequency: bool = False

    @property
    def force(self) -> ForceUnit | None:
        """As the unit of a deflection; None where a deflection cannot have it."""
        known: dict[str, ForceUnit] = {"N": "N", "m": "m", "V": "V"}
        return known.get(self.dimension)


@dataclass(frozen=True, slots=True)
class Column:
    """One column as its name describes it."""

    name: str
    quantity: Quantity | None
    unit: Unit | None
    side: Side | None
    rank: float  # among columns of the same quantity and side, the lowest is the one to take
    is_separation: bool = False
    is_contradictory: bool = False  # the unit is not one of the quantity
    number: int | None = None  # of a curve or a pull: Force 3
    is_weak: bool = False  # by a single letter only


def unit_of(text: str) -> Unit | None:
    """``nm``, ``[pN]``, ``(µm)``, ``in nN``; None for what is no unit."""
    word = unicodedata.normalize("NFKC", text).strip().strip("()[]{}<>").strip()
    word = word.removeprefix("in ").removeprefix("/").strip()
    found = _UNITS.get(word) or (_UNITS.get(_UNITS_FOLDED.get(word.casefold(), "")) if len(word) > 1 else None)
    return None if found is None else Unit(*found, is_frequency="Hz" in word)


def count_known_words(text: str) -> int:
    """How many words of a text are names or units of columns."""
    words = {word for line in text.splitlines()[:200] for word in _words(line)}
    return sum(word in _WORDS and (len(word) > 2 or not word.isascii()) for word in words)


def columns(names: Sequence[str], units: Sequence[str] | None = None) -> list[Column]:
    """What the names of a table say, and the units where they stand in a line of their own."""
    is_sided = any(_side(_words(_take_unit(name)[1]), is_sided=False) == "retract" for name in names)
    return [column(name, unit, is_sided=is_sided) for name, unit in zip(names, units or [""] * len(names), strict=True)]


@lru_cache(maxsize=512)
def column(name: str, unit: str = "", *, is_sided: bool = False) -> Column:
    """One column by its name; ``is_sided``: another one is said to be of the retract."""
    plain = unicodedata.normalize("NFKC", name).strip().strip("\"'").strip()
    found, rest = _take_unit(plain)
    if unit and (apart := unit_of(unit)) is not None:
        found = apart
    words = _words(rest)
    side = _side(words, is_sided=is_sided)
    quantity, is_weak = _quantity(words, found, is_sided=is_sided)
    if found is not None and found.is_frequency:
        quantity, is_weak = "other", False
    dimension = found.dimension if found else None
    numbers = [int(word) for word in words if word.isdigit() and len(word) < 6]
    return Column(
        name=plain,
        quantity=quantity,
        unit=found,
        side=side,
        rank=_rank(quantity, dimension, words),
        is_separation="separation" in _also(words),
        is_contradictory=_contradicts(quantity, dimension),
        number=numbers[-1] if numbers else None,
        is_weak=is_weak,
    )


def in_unit(column: Column, unit: Unit) -> Column:
    """The same column, with a unit that is said elsewhere."""
    return replace(column, unit=unit, is_contradictory=_contradicts(column.quantity, unit.dimension))


def _contradicts(quantity: Quantity | None, dimension: str | None) -> bool:
    """Whether what is so called cannot have such a unit."""
    is_mechanical = quantity in ("force", "deflection", "distance")
    return (quantity, dimension) in _CONTRADICTIONS or (is_mechanical and dimension == "?")


_CONTRADICTIONS = {("force", "m"), ("force", "s"), ("deflection", "s"), ("distance", "N"), ("distance", "s")}


def side_of(text: str) -> Side | None:
    """The one side that a short line or a cell names; None where it names none or several."""
    words = _words(text)
    if len(words) > 2:
        words = [word for word in words if word not in _SIDES_BY_THEMSELVES]
    return _side(words, is_sided=True) if 0 < len(words) <= 8 else None


def _take_unit(name: str) -> tuple[Unit | None, str]:
    """The unit, and the name without it."""
    if (whole := unit_of(name)) is not None:
        return whole, ""
    for match in reversed(list(_BRACKET.finditer(name))):
        if (found := unit_of(match[1])) is not None:
            return found, name[: match.start()] + " " + name[match.end() :]
    words = [word for word in _PARTS.split(name) if word]
    for at in range(len(words) - 1, 0, -1):
        if words[at] in _UNITS:
            return Unit(*_UNITS[words[at]]), " ".join(words[:at] + words[at + 1 :])
    return None, name


@lru_cache(maxsize=2048)
def _words(name: str) -> list[str]:
    """Folded words; a run of Chinese or Japanese is one word, and also the known words that it begins and ends with."""
    words: list[str] = []
    for part in _PARTS.split(name):
        if not part:
            continue
        if _folded(part) in _WORDS:
            words.append(_folded(part))
            continue
        for piece in _CAMEL.sub(" ", part).split():
            words += _parts_of(_folded(piece))
    return words


def _parts_of(word: str) -> list[str]:
    """A word itself, or what it is made of, where that is known: ``retractforce``, ``回退力``."""
    if word in _WORDS or not word:
        return [word]
    stretch = _CJK.search(word)
    shortest = 1 if stretch else 4
    for size in range(len(word) - 1, shortest - 1, -1):
        if (head := word[:size]) in _WORDS and (len(word) - size >= shortest):
            return [head, *_parts_of(word[size:])]
    for size in range(len(word) - 1, shortest - 1, -1):
        if (tail := word[-size:]) in _WORDS and (len(word) - size >= shortest):
            return [word[:-size], tail]
    return [word]


def _also(words: list[str]) -> set[str]:
    """Finer shades of a distance or deflection; a word can have one beside its meaning."""
    return {shade for shade, known in _SHADES.items() if known.intersection(words)}


def _shade(words: str) -> frozenset[str]:
    return frozenset(_folded(word) for word in words.split())


_SHADES = {
    "measured": _shade("measured sensor snsr zsnsr zsensor sense lvdt gemessen mesuré medido 测量 測定"),
    "coarse": _shade("calc calculated drive zdrive raw set target command requested ramp soll"),
    "separation": _shade(
        "separation sep tss tsd tip extension ext trennung séparation separación 分离 间距 間隔 elongation"
    ),
    "pushed": _shade("indentation indent delta δ"),
    "smoothed": _shade("smoothed smooth filtered filter fit fitted smth geglättet 平滑 滤波"),
}


def _side(words: list[str], *, is_sided: bool) -> Side | None:
    known = [word for word in words if is_sided or word not in _SIDES_BESIDE_A_RETRACT]
    said = {_WORDS.get(word) for word in known}
    sides: list[Side] = [side for side in _SIDES if side in said]
    return sides[0] if len(sides) == 1 else None


def _quantity(words: list[str], unit: Unit | None, *, is_sided: bool) -> tuple[Quantity | None, bool]:
    """The quantity, and whether only a single letter says so."""
    said = {_WORDS.get(word, "") for word in words}
    dimension = unit.dimension if unit else ""
    if "ext" in words and not is_sided:
        said.add("distance")
    if said & {"force", "deflection"} and all(word in _ADJECTIVES for word in words if _WORDS.get(word) == "distance"):
        said.discard("distance")
    by_words = _aside(said, words, dimension) or _mechanical(said, words, dimension)
    if by_words is not None:
        return by_words, False
    letter = next((letter for letter in _WEAK if letter in words), None)
    if letter is not None:
        by_unit: dict[str, Quantity] = {"N": "force", "m": "distance" if letter == "x" else "deflection", "s": "time"}
        return by_unit.get(dimension, _WEAK[letter]), True
    by_dimension: dict[str, Quantity] = {"N": "force", "m": "distance", "s": "time", "?": "other"}
    return by_dimension.get(dimension), False


def _aside(said: set[str], words: list[str], dimension: str) -> Quantity | None:
    """What stands beside a force curve in its table."""
    is_mechanical = bool(said & {"force", "deflection", "distance"}) or dimension == "N"
    found: Quantity | None = None
    if "spread" in said and not ("deflection" in said and "error" in words):  # so one vendor calls the deflection
        found = "spread"
    elif "lateral" in said or ("deflection" in said and "h" in words):
        found = "lateral"
    elif "file" in said and not is_mechanical:
        found = "file"
    elif "segment" in said and not is_mechanical:
        found = "segment"
    elif "other" in said and not is_mechanical:
        found = "other"
    elif "time" in said and dimension not in ("N", "m") and words not in _PHOTODIODE:
        found = "time"
    return found


def _mechanical(said: set[str], words: list[str], dimension: str) -> Quantity | None:
    found: Quantity | None = None
    if "force" in said and ("distance" not in said or dimension == "N"):
        found = "force"
    elif words in _PHOTODIODE:
        found = "deflection"
    elif "deflection" in said or ("vertical" in said and "distance" not in said):
        found = "force" if dimension == "N" else "deflection"
    elif "distance" in said and ("force" not in said or dimension == "m"):
        found = "distance"
    elif "index" in said and not dimension:
        found = "index"
    return found


def _rank(quantity: Quantity | None, dimension: str | None, words: list[str]) -> float:
    shades, meanings = _also(words), {_WORDS.get(word) for word in words}
    if quantity == "distance":
        rank = 1.0 - 0.5 * ("measured" in shades) + 1.0 * ("coarse" in shades) + 2.0 * ("separation" in shades)
        rank += 4.0 * ("pushed" in shades) + (4.0 if dimension == "V" else 0.0)
    else:
        rank = {"N": 0.0, "m": 1.0, "V": 2.0}.get(dimension or "", 3.0)
        rank -= 0.2 * ("vertical" in meanings) + 0.1 * ("force" in meanings)
    return rank + 0.3 * ("smoothed" in shades)


def with_side(found: Column, side: Side | None) -> Column:
    """The same column, of a side that a line above its name gives."""
    return found if side is None else replace(found, side=side)
