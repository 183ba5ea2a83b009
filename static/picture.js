// One picture, as it is sent: made small, and without what its file tells of the place where it was taken.

// Gemini looks at a larger picture in tiles of 768 pixels, and counts tokens for each: two by two show what there is.
const LONGEST = 1536; // pixels
const QUALITY = 0.85; // of a JPEG
const PREVIEW = 320; // pixels
const PNG_BYTES = 1024 * 1024; // a larger one is a photograph, which is smaller as a JPEG

// Returns {mime_type, data, preview}; `preview` is a data: URL. Throws an Error whose message can be shown.
export async function pictureOf(file, maxBytes) {
  let image;
  try {
    image = await createImageBitmap(file); // as its file says that it is to be turned
  } catch {
    throw new Error(`This browser cannot read ${file.name || "this picture"}.`);
  }
  const { width, height } = image;
  const isSmall = Math.max(width, height) <= LONGEST;
  const isFine = file.type === "image/png" && isSmall && file.size <= Math.min(PNG_BYTES, maxBytes);
  const blob = isFine ? file : await jpeg(drawn(image, LONGEST), QUALITY);
  const preview = drawn(image, PREVIEW).toDataURL("image/jpeg", QUALITY);
  image.close();
  if (!blob || blob.size > maxBytes) throw new Error("This picture is too large.");
  return { mime_type: blob.type, data: new Uint8Array(await blob.arrayBuffer()), preview };
}

// What is transparent in a picture is white in a JPEG.
function drawn(image, longest) {
  const scale = Math.min(1, longest / Math.max(image.width, image.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function jpeg(canvas, quality) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", quality));
}
