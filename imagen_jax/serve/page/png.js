// What a PNG of imagen carries: its text chunk "imagen_jax", JSON in UTF-8.

const KEYWORD = "imagen_jax";
const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** The metadata in the bytes of a PNG, or null: another file, or a PNG of another program. */
export function readMetadata(buffer) {
  const bytes = new Uint8Array(buffer);
  if (!SIGNATURE.every((byte, i) => bytes[i] === byte)) return null;
  const view = new DataView(buffer);
  let at = 8;
  while (at + 12 <= bytes.length) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "iTXt") {
      const text = readText(data);
      if (text !== null) return text;
    }
    if (kind === "IEND") break;
    at += 12 + length;
  }
  return null;
}

function readText(data) {
  const end = data.indexOf(0);
  const decoder = new TextDecoder();
  if (decoder.decode(data.subarray(0, end)) !== KEYWORD || data[end + 1] !== 0) return null;
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  try {
    return JSON.parse(decoder.decode(data.subarray(translated + 1)));
  } catch {
    return null;
  }
}
