/** The frontend's own modules, which lie beside the pack's when both are served. */
declare module "*/scripts/app.js" {
  export const app: import("./types").App;
}
declare module "*/scripts/api.js" {
  export const api: {
    apiURL(route: string): string;
    fetchApi(route: string, options?: RequestInit): Promise<Response>;
    addEventListener(event: string, hear: (event: CustomEvent) => void): void;
  };
}
