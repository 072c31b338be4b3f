"""Forty wishes of eight kinds in English and Chinese, what a language model says to each, and what must come of it.

Models wrap their JSON in prose, forget quotes, lose numbers and come near the trained sentences: so do these.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from joyimage import spatial
from joyimage.prompts import COLOURISE, INPAINT, OUTPAINT


class Wish(NamedTuple):
    task: str
    wish: str
    answers: tuple[str, ...]  # the last is the one that is taken; without any, no model may be asked
    rewritten: str
    kind: str = "free"


def answer(text: str) -> str:
    return json.dumps({"Rewritten": text}, ensure_ascii=False)


def free(task: str, wish: str, rewritten: str, *refused: str) -> Wish:
    """A wish whose last answer is right, and comes through as it is."""
    return Wish(task, wish, (*refused, answer(rewritten)), rewritten)


def plain(task: str, wish: str, rewritten: str, kind: str) -> Wish:
    return Wish(task, wish, (), rewritten, kind)


DOG = "Remove the brown dog on the left and leave everything else as it is."
LAMPS = "Add 3 brass lamps above the table. Everything else stays as it is."
BIRDS = "在树枝上加3只蓝色的小鸟，其他保持不变。"
SIGN = 'Replace the text "OPEN" on the shop sign with "CLOSED" in the same font.'
CAKE = 'Write "Happy 30th, Anna!" in white icing on the cake.'
DOOR = '把门上的文字改成"欢迎光临"，字体和颜色保持不变。'
SHIRT = 'Write "Nr. 7" in red on the shirt.'
SMILE = "Give the woman on the right a slight, natural smile; her face and hair stay the same."
OLDER = "Let the man look 20 years older, with grey hair and fine wrinkles, still the same person."
SKIN = "让这位女士的皮肤略微光滑一些，五官和发型保持不变。"
EVENING = "Change the scene to evening light, with a deep blue sky and warm street lamps."
INK = "把整幅画面变成中国水墨画风格，构图不变。"
PARK = "A red bench in a park beside 2 birches."
HOUSE = "A white house with a garden and a long fence on both sides."
STREET = "一条下雨的街道，右边有3辆汽车。"

WISHES = [
    free("objects", "remove dog", DOG, "I think the dog should go."),
    free("objects", "add 3 lamps", LAMPS, answer("Add some brass lamps."), answer("Add 4 brass lamps.")),
    free("objects", "加3只鸟", BIRDS, answer("在树枝上加几只小鸟。")),
    Wish("objects", "加2个苹果", (answer("在盘子里加两个红苹果。"),), "在盘子里加两个红苹果。"),
    Wish(
        "objects", "swap the cup for a vase",
        ('Sure!\n```json\n{"Rewritten": "Replace the white cup\nwith a blue vase."}\n```\nDoes that help?',),
        "Replace the white cup with a blue vase.",
    ),
    free("text", 'change the sign from "OPEN" to "CLOSED"', SIGN, answer('Replace the text on the sign with "SHUT".')),
    Wish("text", "cake with 'Happy 30th, Anna!'", (answer(CAKE.replace('"', "")),), CAKE),
    Wish("text", "门上写“欢迎光临”", (answer("把门上的文字改成“欢迎光临”，字体和颜色保持不变。"),), DOOR),
    Wish("text", "门上的字改成「欢迎光临」", (answer("把门上的文字改成欢迎光临，字体和颜色保持不变。"),), DOOR),
    Wish("text", 'put "Nr. 7" on the shirt', ('{"Rewritten": "Write "Nr. 7" in red on the shirt."}',), SHIRT),
    free("people", "make her smile", SMILE),
    free("people", "the man 20 years older", OLDER, answer("Let the man look much older."), "no"),
    free("people", "皮肤好一点", SKIN),
    free("people", "face 10 percent slimmer", "Make her face 10 percent slimmer.", answer("Slim her face.")),
    free("people", "给第1个人戴帽子", "给左边第一个人戴上一顶黑色礼帽。"),
    free("style", "make it evening", EVENING, '{"Rewritten": ""}'),
    free("style", "水墨画风格", INK),
    plain("style", "Colorize this old photo", COLOURISE, "colourise"),
    plain("style", "给这张黑白照片上色", COLOURISE, "colourise"),
    Wish(
        "style", "colorize this old photo of my grandfather at his desk",
        (answer("Give the photo of the old man natural colours."), answer("restore and colourise the photograph")),
        COLOURISE, "colourise",
    ),
    Wish("filling", "fill in the missing areas", (answer(f"{INPAINT}{PARK}"),), INPAINT + PARK, "inpaint"),
    Wish(
        "filling", "inpaint it, there were 2 birches",
        (answer(INPAINT + "A red bench."), answer(f"perform inpainting on the image. Original caption: {PARK}")),
        INPAINT + PARK, "inpaint",
    ),
    Wish(
        "filling", "outpaint to both sides",
        (answer("Show more of it."), answer(OUTPAINT + HOUSE)),
        OUTPAINT + HOUSE, "outpaint",
    ),
    Wish(
        "filling", "extend the photo beyond its edges",
        (answer(OUTPAINT.strip()), answer(f"Extend the picture using outpainting, the caption is: {HOUSE}")),
        OUTPAINT + HOUSE, "outpaint",
    ),
    Wish("filling", "把画面向右外扩，右边有3辆汽车", (answer(OUTPAINT + STREET),), OUTPAINT + STREET, "outpaint"),
    plain("move", "move the cup into the red box", spatial.move_object("cup"), "move"),
    plain("move", "Put my cup in the red box and then remove it.", spatial.move_object("cup"), "move"),
    Wish("move", "把杯子移到红框里", (answer("Move the cup into the red box."),), spatial.move_object("cup"), "move"),
    Wish(
        "move", "the cup belongs where the box is",
        (answer("Move it into the red box."), answer("Move the white cup into the red box and remove the box.")),
        spatial.move_object("white cup"), "move",
    ),
    free("move", "move the cup to the left", "Move the cup 5 cm to the left.", answer(spatial.move_object("cup"))),
    plain("rotate", "turn the car so that we see its left side", spatial.rotate_object("car", "left"), "rotate"),
    plain("rotate", "rotate the bus to show the left front view", spatial.rotate_object("bus", "front left"), "rotate"),
    Wish(
        "rotate", "把汽车转到左侧面",
        (answer("Rotate the car to show the right side view."), answer("Turn the car to show its left side.")),
        spatial.rotate_object("car", "left"), "rotate",
    ),
    Wish(
        "rotate", "I can't see the back of this bus, change that",
        (answer("Rotate the bus to show the far side view."), answer("Rotate the bus to show the back side view")),
        spatial.rotate_object("bus", "rear"), "rotate",
    ),
    Wish(
        "rotate", "让我看看这个花瓶的后面",
        (answer("rotate the vase to show the rear view"),),
        spatial.rotate_object("vase", "rear"), "rotate",
    ),
    plain("camera", "turn the camera 37 degrees to the left", spatial.camera(-37), "camera"),
    plain("camera", "镜头向右转45度，然后拉近", spatial.camera(45, 0, "in"), "camera"),
    plain("camera", "look from above", spatial.camera(0, 30), "camera"),
    Wish(
        "camera", "I'd rather stand 50 degrees further to the right, and closer",
        (answer(spatial.camera(45, 0, "in")), answer("Move the camera. Yaw 50 degrees, zoom: closer")),
        spatial.camera(50, 0, "in"), "camera",
    ),
    Wish(
        "camera", "换一个低25度的角度来拍",
        (answer("Move the camera lower."), answer("Move the camera.\nYaw 0, Pitch -25.\n- Camera zoom: none.")),
        spatial.camera(0, -25), "camera",
    ),
]  # fmt: skip
