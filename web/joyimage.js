/** Registers the widgets of the pack with ComfyUI's frontend. */
import { app } from "../../scripts/app.js";
import { boxWidget } from "./box.js";

app.registerExtension({
  name: "JoyImage.Widgets",
  setup() {
    const link = document.createElement("link");
    Object.assign(link, { rel: "stylesheet", href: new URL("./joyimage.css", import.meta.url).href });
    document.head.append(link);
  },
  getCustomWidgets: () => ({
    JOYIMAGE_BOX: (/** @type {import("./types").GraphNode} */ node, /** @type {string} */ name) => ({
      widget: boxWidget(node, name),
    }),
  }),
});
