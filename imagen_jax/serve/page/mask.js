// A canvas with an image to start from, and paint over what shall be sampled again.

const PAINT = "rgba(255, 0, 160, 0.55)";

export class Mask {
  #canvas;
  #brush;
  #image = null; // a canvas with the image alone
  #paint = null; // a canvas with the paint alone
  #last = null; // where the pointer was
  #cursor = { x: 0, y: 0 }; // of the keyboard

  constructor(canvas, brush) {
    this.#canvas = canvas;
    this.#brush = brush;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.#last = this.#place(event);
      this.#stroke(this.#last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (this.#last) this.#stroke(this.#place(event));
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, () => (this.#last = null));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#draw());
  }

  get hasImage() {
    return this.#image !== null;
  }

  /** Show an image of any size, cut round its centre to the shape of `size`, WIDTHxHEIGHT. */
  async load(source, size) {
    const image = new Image();
    image.src = source;
    await image.decode().catch(() => {
      throw new Error("that is no image that this browser can show");
    });
    const [width, height] = size.split("x").map(Number);
    const scale = Math.max(width / image.naturalWidth, height / image.naturalHeight);
    const [wide, high] = [image.naturalWidth * scale, image.naturalHeight * scale];
    this.#image = blank(width, height);
    this.#image.getContext("2d").drawImage(image, (width - wide) / 2, (height - high) / 2, wide, high);
    this.#paint = blank(width, height);
    [this.#canvas.width, this.#canvas.height] = [width, height];
    this.#cursor = { x: width / 2, y: height / 2 };
    this.#draw();
  }

  clear() {
    this.#paint = blank(this.#canvas.width, this.#canvas.height);
    this.#draw();
  }

  remove() {
    this.#image = this.#paint = null;
  }

  /** The image as a PNG. */
  imageFile() {
    return toFile(this.#image);
  }

  /** A PNG that is transparent where there is paint, as the API wants it; null without any. */
  async maskFile() {
    const { width, height } = this.#paint;
    const painted = this.#paint.getContext("2d").getImageData(0, 0, width, height).data;
    if (!painted.some((value, i) => i % 4 === 3 && value >= 128)) return null;
    const mask = blank(width, height);
    const context = mask.getContext("2d");
    context.fillRect(0, 0, width, height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(this.#paint, 0, 0);
    return toFile(mask);
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = this.#canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  #stroke(to) {
    const context = this.#paint.getContext("2d");
    const from = this.#last ?? to;
    context.lineWidth = this.#width();
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y + 0.01);
    context.stroke();
    if (this.#last) this.#last = to;
    this.#draw();
  }

  /** The brush in the image's pixels: its range is for 256. */
  #width() {
    return (Number(this.#brush.value) * this.#canvas.width) / 256;
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!this.hasImage || !(event.key in moves || event.key === " ")) return;
    event.preventDefault();
    const [x, y] = moves[event.key] ?? [0, 0];
    const step = this.#width() / 2;
    const { width, height } = this.#canvas;
    this.#cursor.x = Math.min(width, Math.max(0, this.#cursor.x + x * step));
    this.#cursor.y = Math.min(height, Math.max(0, this.#cursor.y + y * step));
    if (event.key === " ") this.#stroke(this.#cursor);
    this.#draw();
    const context = this.#canvas.getContext("2d");
    context.beginPath();
    context.arc(this.#cursor.x, this.#cursor.y, step, 0, 2 * Math.PI);
    context.strokeStyle = "#fff";
    context.stroke();
  }

  #draw() {
    if (!this.#image) return;
    const context = this.#canvas.getContext("2d");
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    context.drawImage(this.#image, 0, 0);
    const tint = blank(this.#canvas.width, this.#canvas.height);
    const over = tint.getContext("2d");
    over.drawImage(this.#paint, 0, 0);
    over.globalCompositeOperation = "source-in";
    over.fillStyle = PAINT;
    over.fillRect(0, 0, tint.width, tint.height);
    context.drawImage(tint, 0, 0);
  }
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}

function toFile(canvas) {
  return new Promise((done, fail) => {
    canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("the image can't be encoded"))), "image/png");
  });
}
