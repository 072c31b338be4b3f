"""Spatial instructions, for an object or the camera, and boxes drawn on a picture."""

from __future__ import annotations

from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image
from torch import Tensor

from ..joyimage import locating, spatial
from ..joyimage.boxes import (
    PixelBox,
    box_from_json,
    box_from_mask,
    box_from_regions,
    box_to_json,
    box_to_region,
    boxes_from_json,
    boxes_to_mask,
)
from ..joyimage.encoder import Encoder
from ..joyimage.errors import JoyImageError
from ..joyimage.images import from_batch, to_batch
from ..joyimage.locating import LOCATE_TOKENS
from ..joyimage.places import read_place
from .feedback import answering, told
from .inputs import Refusal, blame, check, encoder_input, object_input
from .node import Node

NO_BOX = {"x": 0, "y": 0, "width": 0, "height": 0}  # what comfy-cli sends for a free bounding box socket
NOT_CONNECTED = ""  # in `validate_inputs`, where None stands for a value that a link will bring
NO_ENCODER = "a place in words takes an encoder to find it: connect Load Encoder (JoyImage), or draw a box"
NO_PICTURE = "the image output of a spatial node is used, but no image is connected to that node"
ANY_SIDE = 10_000  # pixels; for checking fractions before the picture is known


def instruction_output(**options) -> io.String.Output:
    tooltip = "The sentence the model was trained on. Connect it to the prompt of Encode Prompt (JoyImage)."
    return io.String.Output(display_name="instruction", tooltip=tooltip, **options)


def degrees_input(name: str, default: float, limit: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=-limit, max=limit, step=1.0, tooltip=tooltip)


def pitch_and_zoom() -> list[io.Input]:
    return [
        degrees_input("pitch", 0.0, 90.0, "Vertical rotation of the camera in degrees."),
        io.Combo.Input(
            "zoom",
            options=list(spatial.ZOOMS),
            default="unchanged",
            tooltip="Whether the camera comes closer (in), backs off (out) or keeps its distance.",
        ),
    ]


def picture_input() -> io.Image.Input:
    return io.Image.Input("image", optional=True, tooltip="The picture to be edited, for the widget to show.")


def picture_output() -> io.Image.Output:
    tooltip = "The picture as it came, also when this node is bypassed."
    return io.Image.Output(display_name="image", tooltip=tooltip)


def passed_on(image: Tensor | None) -> Tensor | ExecutionBlocker:
    """The picture for the next node, which is told if there is none."""
    return ExecutionBlocker(NO_PICTURE) if image is None else image


class MoveObject(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageMoveObject",
            display_name="Move Object (JoyImage)",
            category="JoyImage/spatial",
            description="Draws a red box where an object is to go, and says so in the words the model was trained on.",
            search_aliases=["red box", "place object", "drag object", "reposition", "image edit"],
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Image.Input("image", tooltip="The picture. The box is drawn into every image of a batch."),
                object_input("move"),
                io.String.Input(
                    "box",
                    default="",
                    optional=True,
                    socketless=True,
                    extra_dict={"widgetType": "JOYIMAGE_BOX"},
                    tooltip='Where the object is to go: {"x": …, "y": …, "w": …, "h": …} in fractions of the picture. '
                    "A connected mask or bbox, or a place in words, is used instead of it.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Painted over the place where the object is to go; the box is drawn around it. "
                    "Comes before bbox, place and the drawn box.",
                ),
                io.BoundingBox.Input(
                    "bbox",
                    optional=True,
                    socketless=False,
                    force_input=True,
                    default=NO_BOX,
                    tooltip="The place where the object is to go, as from Locate; of several the first. "
                    "Comes before place and the drawn box.",
                ),
                encoder_input("From Load Encoder (JoyImage), which finds the place in words.", optional=True),
                io.String.Input(
                    "place",
                    default="",
                    optional=True,
                    tooltip="Where the object is to go in words, as in: next to the plate. Takes an encoder. "
                    "Comes before the drawn box.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="The picture with its red box. Connect it to an image of Encode Prompt (JoyImage).",
                ),
                instruction_output(),
                io.BoundingBox.Output(display_name="bbox", tooltip="The box in pixels."),
                io.Mask.Output(display_name="mask", tooltip="White inside the box, as for Set Latent Noise Mask."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, object, box=None, mask=NOT_CONNECTED, bbox=NOT_CONNECTED, encoder=NOT_CONNECTED, place=""
    ) -> bool | str:
        problem = blame("object", check(spatial.move_object, object))
        if problem is not True or mask != NOT_CONNECTED or bbox not in (NOT_CONNECTED, NO_BOX) or place is None:
            return problem
        if place.strip():
            return Refusal("place", NO_ENCODER) if encoder == NOT_CONNECTED else True
        field = "object" if box is None else "box"  # one that the prompt gives
        return blame(field, check(box_from_json, box or "", ANY_SIDE, ANY_SIDE))

    @classmethod
    def execute(cls, image, object, box="", mask=None, bbox=None, encoder=None, place="") -> io.NodeOutput:
        pictures = from_batch(image)
        shown = {"source": ui.PreviewImage(image[:1]).values}  # for the widget, where no node before shows the picture
        if mask is not None:
            area = box_from_mask(mask, *pictures[0].size)
        elif bbox not in (None, NO_BOX):
            area = box_from_regions(bbox, *pictures[0].size)
        elif place.strip():
            area = cls._found(encoder, pictures[0], object, place)
            shown |= told(cls.hidden.unique_id, f"{place.strip()}: {box_to_json(area, *pictures[0].size)}")
        else:
            area = box_from_json(box, *pictures[0].size)
        marked = to_batch([spatial.draw_box(picture, area) for picture in pictures])
        mask = boxes_to_mask([area], *pictures[0].size)
        return io.NodeOutput(marked, spatial.move_object(object), box_to_region(area), mask, ui=shown)

    @classmethod
    def _found(cls, encoder: Encoder | None, picture: Image.Image, object: str, place: str) -> PixelBox:
        """The box that a place in words means."""
        if encoder is None:  # the words came by a link, and are not known before
            raise JoyImageError(NO_ENCODER)
        with answering(cls.hidden.unique_id, encoder, LOCATE_TOKENS) as on_text:
            return locating.place(encoder, picture, object, read_place(place), on_text)


class RotateObject(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageRotateObject",
            display_name="Rotate Object (JoyImage)",
            category="JoyImage/spatial",
            description="The instruction that turns an object until one of its sides is seen.",
            search_aliases=["turn object", "side view", "rear view", "multi angle", "turnaround"],
            inputs=[
                object_input("turn"),
                io.Combo.Input(
                    "view",
                    options=list(spatial.VIEWS),
                    default="right",
                    tooltip="The side of the object that is to be seen.",
                ),
                picture_input(),
            ],
            outputs=[instruction_output(), picture_output()],
        )

    @classmethod
    def validate_inputs(cls, object) -> bool | str:
        return check(spatial.rotate_object, object, spatial.VIEWS[0])

    @classmethod
    def execute(cls, object, view, image=None) -> io.NodeOutput:
        return io.NodeOutput(spatial.rotate_object(object, view), passed_on(image))


class Camera(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageCamera",
            display_name="Camera Control (JoyImage)",
            category="JoyImage/spatial",
            description="The instruction that moves the camera around a scene that stays as it is.",
            search_aliases=["camera angle", "viewpoint", "novel view", "yaw pitch", "multi angle"],
            inputs=[
                degrees_input(
                    "yaw",
                    45.0,
                    360.0,
                    "Horizontal rotation of the camera around the scene in degrees; 270 is written as -90.",
                ),
                *pitch_and_zoom(),
                picture_input(),
            ],
            outputs=[instruction_output(), picture_output()],
        )

    @classmethod
    def execute(cls, yaw, pitch, zoom, image=None) -> io.NodeOutput:
        return io.NodeOutput(spatial.camera(yaw, pitch, zoom), passed_on(image))


class Orbit(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageOrbit",
            display_name="Camera Orbit (JoyImage)",
            category="JoyImage/spatial",
            description="A list of camera instructions, one per view around a scene. Encode Prompt (JoyImage) encodes "
            "the picture once for all of them, and everything after it runs once per view.",
            search_aliases=["turntable", "turnaround", "360", "multi view", "multi angle", "camera path"],
            inputs=[
                degrees_input("yaw_start", 0.0, 360.0, "Yaw of the first view in degrees."),
                degrees_input(
                    "yaw_end",
                    360.0,
                    360.0,
                    "Yaw of the last view in degrees. A full turn (0 to 360) ends one step short of its start.",
                ),
                io.Int.Input("views", default=8, min=1, max=64, tooltip="Number of views, at equal steps."),
                *pitch_and_zoom(),
                picture_input(),
            ],
            outputs=[instruction_output(is_output_list=True), picture_output()],
        )

    @classmethod
    def validate_inputs(cls, yaw_start, yaw_end, views) -> bool | str:
        return blame("yaw_end", check(spatial.orbit, yaw_start, yaw_end, views))

    @classmethod
    def execute(cls, yaw_start, yaw_end, views, pitch, zoom, image=None) -> io.NodeOutput:
        return io.NodeOutput(spatial.orbit(yaw_start, yaw_end, views, pitch, zoom), passed_on(image))


class DrawBoxes(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="JoyImageDrawBoxes",
            display_name="Draw Boxes (JoyImage)",
            category="JoyImage/spatial",
            description="Boxes that you draw on a picture, as bounding boxes and as a mask.",
            search_aliases=["bounding box", "mask by box", "regions", "inpaint mask"],
            inputs=[
                io.Image.Input("image", tooltip="The picture to draw on; of a batch, the first is shown."),
                io.String.Input(
                    "boxes",
                    default="",
                    socketless=True,
                    extra_dict={"widgetType": "JOYIMAGE_BOXES"},
                    tooltip='The boxes: [{"x": …, "y": …, "w": …, "h": …}, …] in fractions of the picture.',
                ),
            ],
            outputs=[
                io.BoundingBoxes.Output(display_name="boxes", tooltip="All boxes in pixels, in the order drawn."),
                io.BoundingBox.Output(
                    display_name="bbox",
                    tooltip="The first box in pixels. Connect it to the bbox of Move Object (JoyImage).",
                ),
                io.Mask.Output(display_name="mask", tooltip="White inside all boxes, as for Set Latent Noise Mask."),
                io.Image.Output(display_name="image", tooltip="The picture as it came."),
            ],
        )

    @classmethod
    def validate_inputs(cls, boxes) -> bool | str:
        return blame("boxes", check(boxes_from_json, boxes, ANY_SIDE, ANY_SIDE))

    @classmethod
    def execute(cls, image, boxes) -> io.NodeOutput:
        size = from_batch(image[:1])[0].size
        areas = boxes_from_json(boxes, *size)
        regions = [box_to_region(area) for area in areas]
        source = ui.PreviewImage(image[:1]).values  # for the widget, where no node before shows the picture
        return io.NodeOutput(regions, regions[0], boxes_to_mask(areas, *size), image, ui={"source": source})
