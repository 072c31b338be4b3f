"""What people write, in English or Chinese, brought into the sentences that the model was trained on.

`sentence` reads near-misses of these sentences and plain wishes alike: "turn the car so that we see its left side",
"look from above", 镜头向左转45度. Nothing is guessed: each word of a text must have its place in a form that is known
here, or there is no sentence for it. What a form leaves open, such as how far above is, its notes say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import spatial
from .errors import JoyImageError
from .numerals import NUMERAL, value
from .prompts import COLOURISE, INPAINT, OUTPAINT
from .settings import VIEWS

TURN, RISE = 45, 30  # degrees of a turn to a side, and of a look from above or below, that names none
MOST_WORDS = 8  # of an object's description: longer ones tell of more than an object
MOST_SIGNS = 60
MOST_TEXT = 500  # characters; a plain wish is short, and nothing here takes long

# Punctuation of Chinese texts and of word processors as ASCII has it; the signs for degrees as one.
SIGNS = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    {"。": ".", "、": ",", "−": "-", "–": "-", "º": "°", "˚": "°", "℃": "°", "’": "'", "\u3000": " ", "•": "-"}
)
POLITE = re.compile(
    r"(?:please|(?:could|can|would|will)\s+you|i(?:'d|\s+would)\s+like\s+(?:you\s+)?to|i\s+want\s+(?:you\s+)?to|let's|now"
    r"|请你?|帮我|麻烦你?|我想要?|我要)(?=[\W\u4e00-\u9fff])[\s,]*",
    re.IGNORECASE,
)
THANKS = re.compile(r"[\s,.!?]*(?:please|thanks|thank\s+you|吧|谢谢|好吗|可以吗)?[\s,.!?]*$", re.IGNORECASE)
# What needs no saying, as nothing else is to change.
REST = (
    r"(?:while\s+|and\s+)?(?:keep|keeping|leave|leaving)\s+(?:everything|all|the\s+rest|the\s+background|the\s+(?:3d\s+)?scene)"
    r"(?:\s+else)?(?:\s+(?:exactly|in\s+the\s+picture))?(?:\s+(?:the\s+same|same|unchanged|static|still|fixed|as\s+it\s+is|as\s+is))"
    r"|only\s+chang(?:e|ing)\s+the\s+(?:viewpoint|camera|view)"
    r"|(?:并?保持)?(?:其他|其余|其它|背景|场景)[^,.\n]{0,6}(?:不变|静止)"
)
TAIL = re.compile(rf"[\s,.;!]+(?:{REST})[\s.]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Sentence:
    """A sentence that the model was trained on, its kind, and what was read into the words that it comes from."""

    text: str
    kind: str  # move, rotate, camera, colourise, inpaint or outpaint
    notes: tuple[str, ...] = ()
    instruction: spatial.Instruction | None = None


def sentence(text: str) -> Sentence | None:
    """The trained sentence that `text` is, nearly is, or plainly wishes for; None if there is none or it is unclear.

    One that is exact stays as it is, but for white space around it.
    """
    if exact := spatial.parse(text).instruction:
        return Sentence(text.strip(), exact.kind, (), exact)
    if len(text) > MOST_TEXT:
        return _filling(text)
    plain = _without_courtesy(text.translate(SIGNS).strip())
    for read in (_move, _rotate, _camera):
        try:
            found = read(plain)
        except JoyImageError:  # the object of one form, which the next may read otherwise
            continue
        if found:
            instruction, notes = found
            return Sentence(instruction.text, instruction.kind, notes, instruction)
    if any(_whole(pattern, plain) for pattern in PHOTOGRAPHS):
        return Sentence(COLOURISE, "colourise")
    return _filling(text)


def expected(wish: str) -> Sentence | None:
    """The start of the sentence that a wish about a picture must become, where its words leave no doubt."""
    for pattern, text, kind in EXPECTED:
        if re.search(pattern, wish, re.IGNORECASE):
            return Sentence(text, kind)
    return None


class NearMiss(UserWarning):
    """A prompt is nearly a spatial instruction: what differs, and the instruction that is meant if that is clear."""

    TEXT = (
        "the prompt is close to a spatial instruction, but the model knows those word for word: {}. {}The spatial "
        "nodes, --move, --rotate and --camera, and joyimage.spatial write them as they must be"
    )

    def __init__(self, problems: tuple[str, ...], instruction: spatial.Instruction | None):
        meant = f"Did you mean:\n{instruction.text}\n" if instruction else ""
        super().__init__(self.TEXT.format("; ".join(problems), meant))
        self.instruction = instruction


def near_miss(prompt: str) -> NearMiss | None:
    """What to warn of, if `prompt` is nearly a spatial instruction."""
    problems = spatial.parse(prompt).problems
    if not problems:
        return None
    meant = sentence(prompt)
    return NearMiss(problems, meant and meant.instruction)


Found = tuple[spatial.Instruction, tuple[str, ...]]


def _without_courtesy(text: str) -> str:
    """Without what asks for the rest, and what says that all else stays."""
    while polite := POLITE.match(text):
        text = text[polite.end() :]
    return THANKS.sub("", TAIL.sub("", THANKS.sub("", text)))


def _whole(pattern: str, text: str) -> re.Match | None:
    """A match of all of `text`, whatever its white space and case."""
    return re.fullmatch(pattern, " ".join(text.split()), re.IGNORECASE)


def _object(text: str) -> str:
    """The object as a sentence names it; `JoyImageError` for what may be more than an object, or none."""
    words = ARTICLE.sub("", text.strip())
    if not words or len(words) > MOST_SIGNS or len(words.split()) > MOST_WORDS or NO_OBJECT.search(words):
        raise JoyImageError("more than an object, or none")
    return words if re.search("[a-z]", text) else words.lower()


# In English a word of its own: not the start of "analogue clock".
ARTICLE = re.compile(
    r"^(?:(?:the|this|that|these|those|an?|my|our|your)(?:\s+|$)|这个|那个|这辆|这只|这把|这张)\s*", re.IGNORECASE
)
NO_OBJECT = re.compile(
    r"[,.;:!?\"]|\b(?:and|then|so|while|but|to|into|it|him|them|camera|view(?:point)?|perspective|scene|picture|photo|image)\b"
    r"|镜头|相机|摄像机|机位|视角|画面|照片|图片|图像|并|然后|它|[把将让使]|\d",
    re.IGNORECASE,
)

BOX = r"(?:box|rectangle|frame|square|bounding\s+box)"
BOX_ZH = r"(?:这个|那个)?红色?的?(?:方|矩形|边)?框"
MOVES = (
    rf"(?:move|put|place|shift|drag)\s+(?P<object>\S.*?)\s+(?:in|into|inside|within|to|onto)\s+(?:the\s+|a\s+|this\s+|that\s+)?red\s*{BOX}"
    rf"(?:[\s,.;]*(?:and|then|finally|after(?:wards|\s+that))*[\s,]*(?:finally\s*|then\s*)?"
    rf"(?:remove|delete|erase)\s+(?:the\s+|this\s+|that\s+)?(?:red\s*)?(?:{BOX}|it))?",
    rf"[把将]?(?P<object>\S.*?)(?:移动?|挪动?|放|搬)[到进入至]+\s*{BOX_ZH}(?:里面?|之?中|之?内)?"
    rf"(?:[\s,.;]*(?:并且?|然后|最后|再)*(?:去掉|删除|删掉|移除|擦除|去除){BOX_ZH})?",
)


def _move(text: str) -> Found | None:
    for pattern in MOVES:
        if match := _whole(pattern, text):
            return spatial.Move(_object(match["object"])), ()
    return None


TURNS = r"(?:rotate|turn|spin|swivel|revolve)"
ITS = r"(?:its|his|her|their)"
US = r"(?:us|me|you|the\s+camera|the\s+viewer)"
ROTATES = (
    # … to show the left side view, … so that we see its left side, … to see it from behind
    rf"{TURNS}\s+(?P<object>\S.*?)(?:\s+around)?\s*,?\s*(?:to|so\s+that|so|such\s+that|until|in\s+order\s+to)\s+(?:(?:we|you|i|one|it|he|she|they)\s+)?"
    rf"(?:can\s+|could\s+|will\s+)?(?:shows?|see|views?|display|reveal)\s+(?:{US}\s+)?(?:(?:it|him|her|them)\s+from\s+)?"
    rf"(?:the\s+|an?\s+|{ITS}\s+)?(?P<view>[a-z\s-]+?)(?:\s+of\s+(?:it|him|her|them))?",
    # … so that its left side is visible, … until its back faces us
    rf"{TURNS}\s+(?P<object>\S.*?)(?:\s+around)?\s*,?\s*(?:so\s+that|so|such\s+that|until)\s+(?:the|{ITS})\s+(?P<view>[a-z\s-]+?)\s+"
    rf"(?:is\s+visible|is\s+seen|is\s+shown|can\s+be\s+seen|shows|(?:faces|is\s+facing)\s+{US})",
    # … to its rear side, … to the front left view
    rf"{TURNS}\s+(?P<object>\S.*?)\s+to\s+{ITS}\s+(?P<view>[a-z\s-]+?\s*side)(?:\s+view)?",
    rf"{TURNS}\s+(?P<object>\S.*?)\s+to\s+(?:the\s+|an?\s+)?(?P<view>[a-z\s-]+?)\s+view",
    # … to face us
    rf"{TURNS}\s+(?P<object>\S.*?)(?:\s+around)?\s*,?\s*(?:to\s+face|(?:so\s+that|so|until)\s+(?:it|he|she|they)\s+faces?)\s+(?P<front>{US})",
)
VIEW_WORDS = {"front": "front", "rear": "rear", "back": "rear", "behind": "rear", "left": "left", "right": "right"}
VIEW_FILL = {"side", "view", "hand", "the", "of", "quarter", "corner", "angle", "profile"}
VIEW_ZH = r"(?P<view>(?:[正前后背左右]方?){1,2}[侧面边部]{0,2}(?:视图|视角)?)"
SEE_ZH = r"(?:显示|展示|露出|呈现|看到|看见|可以看到|能看到|看清)"
ROTATES_ZH = (
    rf"[把将让使](?P<object>\S.*?)(?:旋转|转动|转)(?:过来|过去|一下)?\s*,?\s*(?P<to>[到至成为])\s*(?:它|其|他|她)?的?{VIEW_ZH}",
    rf"[把将让使](?P<object>\S.*?)(?:旋转|转动|转)(?:过来|过去|一下|到)?\s*,?\s*(?:以|来|使|好?让)?(?:我们|人|我)?(?:能|可以)?{SEE_ZH}"
    rf"(?:它|其|他|她)?的?{VIEW_ZH}",
    rf"(?:旋转|转动)(?P<object>\S.*?)\s*,?\s*(?:以|来|使|好?让)?(?:我们|人|我)?(?:能|可以)?{SEE_ZH}(?:它|其|他|她)?的?{VIEW_ZH}",
    rf"(?:旋转|转动)(?P<object>\S.*?)(?P<to>[到至])(?:它|其|他|她)?的?{VIEW_ZH}",
)


def _rotate(text: str) -> Found | None:
    for pattern in (*ROTATES, *ROTATES_ZH):
        match = _whole(pattern, text)
        if match is None:
            continue
        fields = match.groupdict()
        view = "front" if fields.get("front") else _view(fields["view"])
        # "转到左边" may be a way to turn as well as the side that is seen
        unclear = fields.get("to") and not re.search("[侧面视正背]", fields["view"])
        if view and not unclear:
            return spatial.Rotate(_object(fields["object"]), view), ()
    return None


def _view(words: str) -> str | None:
    """One of `VIEWS`, whose words may come in another order, with other names for the rear, or in Chinese."""
    found = [word for word in re.findall("[a-z]+", words.lower()) if word not in VIEW_FILL]
    sides = [VIEW_WORDS.get(word) for word in found]
    if not found:
        chinese = {"正": "front", "前": "front", "后": "rear", "背": "rear", "左": "left", "右": "right"}
        sides = [chinese[sign] for sign in words if sign in chinese]
    return next((view for view in VIEWS if sorted(view.split()) == sorted(map(str, sides))), None)


# What moves the camera: each clause of a wish is one of these, and names some of its fields.
N = rf"(?P<n>[+-]?\s?\d+(?:\.\d+)?|{NUMERAL})\s*(?:°|degrees?\b|deg\b|度)?"
CAM = r"(?:the\s+|your\s+)?(?:camera|viewpoint|view|point\s+of\s+view|viewing\s+angle|perspective)"
TO = r"(?:to\s+the\s+|to\s+|towards?\s+the\s+)?"
SIDE = r"(?P<side>left|right)\b"
WAY = r"(?P<way>left|right|up|down)(?:wards?)?\b"
AROUND = r"(?:\s+around)?(?:\s+(?:the\s+(?:scene|object|subject)|it))?"
CAM_ZH = r"[把将让使]?(?:镜头|相机|摄像机|摄影机|机位|视角|视点)"
WAY_ZH = r"(?:再?[向往朝])?(?P<way>[左右上下])[边方侧]?"
SEE = r"(?:look|view|show|see)(?:\s+(?:at\s+)?(?:it|this|them|everything|(?:the\s+)?(?:scene|picture|photo|image)))?"
IN = r"(?:zoom(?:ed|ing)?[\s-]*in|in|closer|nearer|拉近|推近|放大)"
OUT = r"(?:zoom(?:ed|ing)?[\s-]*out|out|further|farther|away|拉远|推远|缩小)"
SAME = r"(?:unchanged|none|no\s+zoom|no\s+change|no|same|the\s+same|不变)"
ABIT = r"(?:\s+(?:a\s+bit|a\s+little|slightly|more|further))?"
CLAUSES = (
    rf"(?:turn|rotate|orbit|swing|move|revolve)\s+{CAM}{AROUND}\s+(?:by\s+)?{N}{AROUND}(?:\s*,?\s*{TO}{WAY})?{AROUND}",
    rf"(?:turn|rotate|orbit|swing|move|revolve)\s+{CAM}{AROUND}\s+{TO}{WAY}\s*,?\s*(?:by\s+)?{N}",
    rf"(?:turn|rotate|orbit|swing|revolve)\s+{CAM}{AROUND}\s+{TO}{WAY}",
    rf"(?P<up>raise|lift)\s+{CAM}(?:\s+(?:by\s+)?{N})?",
    rf"(?P<down>lower)\s+{CAM}(?:\s+(?:by\s+)?{N})?",
    rf"{SEE}\s+(?:down\s+)?from\s+(?P<up>above|the\s+top|high\s+up|up\s+high)\b",
    rf"{SEE}\s+(?:up\s+)?from\s+(?P<down>below|underneath|beneath)\b",
    rf"zoom\s+(?:(?P<zoom_in>in)|(?P<zoom_out>out))\b{ABIT}",
    rf"(?:move|bring|take|push|pull)\s+{CAM}\s+(?:(?P<zoom_in>closer|nearer|in)|(?P<zoom_out>back|away|out|(?:further|farther)(?:\s+(?:away|back|out))?))\b",
    rf"{CAM_ZH}{WAY_ZH}(?:旋转|转动|转|环绕|绕|移动|移|偏|抬高|抬|升|降)?{N}",
    rf"{CAM_ZH}(?:旋转|转动|转){N}",
    rf"{CAM_ZH}{WAY_ZH}(?:旋转|转动|转)",
    r"从(?:高处|(?P<up>上面|上方|顶部|上往下|上向下))(?:往下|向下)?(?:看|观看|俯视|俯拍|拍摄|拍)(?:场景|画面|它|一下)?",
    r"(?:改成|换成|改为|切换到)?(?P<up>俯视|俯拍)(?:视角|角度|图)?",
    r"从(?P<down>下面|下方|底部|低处|下往上|下向上)(?:往上|向上)?(?:看|观看|仰视|仰拍|拍摄|拍)(?:场景|画面|它|一下)?",
    r"(?:改成|换成|改为|切换到)?(?P<down>仰视|仰拍)(?:视角|角度|图)?",
    rf"(?:{CAM_ZH})?(?:再)?(?:(?P<zoom_in>拉近|推近|推进)|(?P<zoom_out>拉远|推远))(?:镜头|画面)?(?:一点|一些|点)?",
    # the lines of the sentence itself
    r"(?P<head>move\s+(?:the\s+)?camera|camera\s+(?:rotation|motion|movement)|移动(?:镜头|相机)|镜头旋转)\b",
    rf"(?P<yaw>yaw|偏航角?)\s*[:=]?\s*{N}(?:\s*{TO}{SIDE})?",
    rf"(?P<pitch>pitch|俯仰角?)\s*[:=]?\s*{N}(?:\s*(?P<way>up|down)\b)?",
    rf"(?:camera\s+zoom|zoom|缩放)\s*[:=]?\s*(?:zoom\s+)?(?:(?P<zoom_in>{IN})|(?P<zoom_out>{OUT})|(?P<zoom_unchanged>{SAME}))(?![a-z])",
    rf"(?P<rest>{REST})",
)
CLAUSE = tuple(re.compile(pattern, re.IGNORECASE) for pattern in CLAUSES)
BETWEEN = re.compile(r"(?:[\s,.;:!*]|-(?!\s*\d)|\b(?:and|then|also)\b|并且?|然后|再|同时)*", re.IGNORECASE)


def _camera(text: str) -> Found | None:
    """All fields that the clauses name; none may be named twice, nothing may be left over."""
    fields: dict[str, float | str] = {}
    notes: list[str] = []
    for clause in _clauses(text):
        if clause is None:
            return None
        for name, given in _fields(clause, notes.append):
            if name in fields:
                return None
            fields[name] = given
    if not fields:
        return None
    yaw, pitch, zoom = fields.get("yaw", 0), fields.get("pitch", 0), fields.get("zoom", "unchanged")
    return spatial.Camera(float(yaw), float(pitch), str(zoom)), tuple(notes)


def _clauses(text: str) -> Iterator[re.Match | None]:
    """The clauses of a text one after the other, the longest at each place; None for what is no clause."""
    position = BETWEEN.match(text).end()  # pyright: ignore[reportOptionalMemberAccess] - it matches nothing, too
    while position < len(text):
        matches = (pattern.match(text, position) for pattern in CLAUSE)
        longest = max((match for match in matches if match), key=lambda match: match.end(), default=None)
        yield longest
        if longest is None or longest.end() == position:
            return
        after = BETWEEN.match(text, longest.end()).end()  # pyright: ignore[reportOptionalMemberAccess] - as above
        joined = after == longest.end() < len(text) and text[after - 1].isalnum() and text[after].isalnum()
        if joined and text[after - 1].isascii() and text[after].isascii():  # within a word
            yield None
            return
        position = after


def _fields(clause: re.Match, note: Callable[[str], None]) -> Iterator[tuple[str, float | str]]:
    """The fields that a clause gives, and notes of what it leaves open."""
    given = {name: text for name, text in clause.groupdict().items() if text}
    for name in given:
        if name.startswith("zoom_"):
            yield "zoom", name.removeprefix("zoom_")
            return
    way = WAYS.get((given.get("way") or given.get("side") or "").lower()) or next(
        (way for name, way in WAYS.items() if name in given), None
    )
    vertical = "pitch" in given or way in ((0, 1), (0, -1))
    degrees = value(given["n"]) if "n" in given else None
    if degrees is None and way is None:
        return  # a line that names nothing
    if degrees is None:
        degrees = RISE if vertical else TURN
        note(f"{clause[0].strip()!r} was read as {degrees} degrees")
    elif way is None and not {"yaw", "pitch"} & given.keys():
        note(f"{clause[0].strip()!r} was read as a turn to the right")
    yield ("pitch", degrees * (way or (0, 1))[1]) if vertical else ("yaw", degrees * (way or (1, 0))[0])


# What a direction does to yaw and to pitch: positive yaw takes the camera around to the right, positive pitch up.
WAYS = {
    "left": (-1, 0), "左": (-1, 0), "right": (1, 0), "右": (1, 0),
    "up": (0, 1), "上": (0, 1), "down": (0, -1), "下": (0, -1),
}  # fmt: skip

AGE = r"(?:(?:old|black[\s-]and[\s-]white|b&w|b/w|faded|damaged|gr[ae]y(?:scale)?|monochrome|vintage|family)[\s,]+)*"
PHOTO = rf"(?:the|this|my|an?)\s+{AGE}(?:photo(?:graph)?|picture|image)"
COLOUR = r"(?:colou?ri[sz]e|add\s+colou?rs?\s+to|bring\s+colou?rs?\s+to)"
NATURALLY = r"(?:\s+(?:naturally|realistically|(?:in|with)\s+(?:natural|realistic)\s+colou?rs))?"
PHOTO_ZH = r"(?:这张|这幅|这个|该)?的?(?:黑白|老|旧|泛黄|的)*(?:照片|相片|图片|图像)"
PHOTOGRAPHS = (
    rf"(?:restore\s+(?:and|&)\s+)?{COLOUR}(?:\s+(?:and|&)\s+restore)?\s+{PHOTO}{NATURALLY}",
    rf"restore\s+{PHOTO}\s+and\s+colou?ri[sz]e\s+it{NATURALLY}",
    rf"[给把将为]?{PHOTO_ZH}(?:修复)?(?:并|和|后|,)*(?:上色|着色|彩色化|变成彩色|上颜色)",
    rf"(?:修复)?(?:并|和)?(?:上色|着色){PHOTO_ZH}",
)
CAPTION = r"\s*[.,:;-]*\s*(?:the\s+)?(?:original\s+|image\s+)?caption\b(?P<caption>.*)"
BEFORE_CAPTION = re.compile(r"\s*(?:is\b)?[\s.,:;-]*", re.IGNORECASE)
PICTURE = r"(?:this|the)\s+(?:image|picture|photo)"
EDGES = r"(?:\s+beyond\s+(?:its|the)\s+(?:boundaries|borders|edges|frame))?"
FILLINGS = (
    (
        r"(?:please\s+)?(?:perform\s+(?:an?\s+)?(?:image\s+)?inpainting\s+(?:on|of|for)|inpaint)\s+"
        + PICTURE
        + CAPTION,
        INPAINT,
        "inpaint",
    ),
    (
        rf"(?:please\s+)?(?:extend|expand|outpaint)\s+{PICTURE}{EDGES}"
        rf"(?:\s+(?:using|by|with|through|via)\s+outpainting)?{CAPTION}",
        OUTPAINT,
        "outpaint",
    ),
)


def _filling(text: str) -> Sentence | None:
    """Inpainting or outpainting with the caption that follows its sentence, which stays as it is."""
    for pattern, start, kind in FILLINGS:
        if match := re.fullmatch(pattern, text.strip().replace("：", ":"), re.IGNORECASE | re.DOTALL):
            caption = " ".join(BEFORE_CAPTION.sub("", match["caption"], count=1).split())
            return Sentence(start + caption, kind) if caption else None
    return None


EXPECTED = (
    (
        r"\boutpaint|\b(?:extend|expand|widen)\s+(?:the\s+|this\s+|my\s+)?(?:image|picture|photo(?:graph)?|canvas)\b"
        r"|扩图|外扩|外绘|(?:扩展|延伸|扩充)(?:这张|这幅)?(?:画面|画布|图像|图片|照片|边界)",
        OUTPAINT,
        "outpaint",
    ),
    (
        r"\binpaint|\bfill(?:\s+in)?\s+(?:the\s+|all\s+)*(?:(?:masked|missing|blank|white|black|gr[ae]y|erased|damaged)\s+"
        r"(?:areas?|regions?|parts?|spots?|pieces?|pixels?)|holes?)\b|补全|填补|填充(?:空白|缺失|遮罩|白色|黑色|灰色)",
        INPAINT,
        "inpaint",
    ),
    (
        rf"\b{COLOUR}\s+{PHOTO}\b|(?:照片|相片).{{0,9}}(?:上色|着色)|(?:上色|着色).{{0,6}}(?:照片|相片)",
        COLOURISE,
        "colourise",
    ),
)
