// What the SDKs' cases have in common.

export const WAIT = 30_000; // ms after which something does not come any more

export const PAINT = {
  type: "function",
  name: "paint",
  description: "Paints the wall.",
  parameters: {
    type: "object",
    properties: { color: { type: "string" } },
    required: ["color"],
    additionalProperties: false,
  },
};
