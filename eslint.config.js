import js from "@eslint/js";

const browser = ["document", "window", "Image", "ResizeObserver", "AbortController", "URL", "URLSearchParams"];

export default [
  js.configs.recommended,
  { files: ["web/**/*.js", "joyimage/**/*.js"], languageOptions: { globals: Object.fromEntries(browser.map((name) => [name, "readonly"])) } },
];
