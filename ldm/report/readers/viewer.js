"use strict";
// Grey images side by side under one view: window and level, zoom and pan. Knows no study.

class Viewer {
  /** canvases: one for each image;  size: pixels of a side;  onChange(view) */
  constructor(canvases, size, onChange) {
    this.size = size;
    this.onChange = onChange;
    this.panes = canvases.map((canvas) => {
      const image = Object.assign(document.createElement("canvas"), { width: size, height: size });
      return { canvas, image, grey: new Uint8Array(size * size) };
    });
    this.reset();
    for (const { canvas } of this.panes) this.listen(canvas);
    const watch = new ResizeObserver(() => this.draw());
    for (const { canvas } of this.panes) watch.observe(canvas);
  }

  /** images: base64 of the grey levels, row by row, one for each canvas */
  show(images) {
    this.panes.forEach((pane, i) => {
      pane.grey = Uint8Array.from(atob(images[i]), (letter) => letter.charCodeAt(0));
    });
    this.reset();
  }

  reset() {
    // x, y: the place in the image, of 0 to 1, that is in the middle of the canvas
    this.view = { window: 256, level: 127.5, zoom: 1, x: 0.5, y: 0.5, inverted: false };
    this.develop();
  }

  /** Wider is less contrast; a higher level is a darker image. */
  expose(window, level) {
    this.view.window = clamp(window, 8, 512);
    this.view.level = clamp(level, 0, 255);
    this.develop();
  }

  invert() {
    this.view.inverted = !this.view.inverted;
    this.develop();
  }

  /** The place (x, y) of the image stays where it is on the canvas. */
  zoom(factor, x = this.view.x, y = this.view.y) {
    const before = this.view.zoom;
    this.view.zoom = clamp(before * factor, 1, 16);
    const share = before / this.view.zoom;
    this.look(x + (this.view.x - x) * share, y + (this.view.y - y) * share);
  }

  look(x, y) {
    const reach = 0.5 / this.view.zoom; // the middle stays as far from the edge
    this.view.x = clamp(x, reach, 1 - reach);
    this.view.y = clamp(y, reach, 1 - reach);
    this.draw();
  }

  /** Grey levels to those of the window; then draw. */
  develop() {
    const { window, level, inverted } = this.view;
    const table = Uint8ClampedArray.from({ length: 256 }, (_, grey) => {
      const shown = ((grey - level) / window) * 256 + 127.5;
      return inverted ? 255 - shown : shown;
    });
    for (const { image, grey } of this.panes) {
      const pixels = new Uint32Array(grey.length);
      for (let i = 0; i < grey.length; i++) pixels[i] = 0xff000000 | (table[grey[i]] * 0x010101);
      const bytes = new Uint8ClampedArray(pixels.buffer);
      image.getContext("2d").putImageData(new ImageData(bytes, this.size, this.size), 0, 0);
    }
    this.draw();
  }

  draw() {
    const { zoom, x, y } = this.view;
    for (const { canvas, image } of this.panes) {
      if (!canvas.clientWidth) continue;
      const dense = devicePixelRatio || 1;
      canvas.width = Math.round(canvas.clientWidth * dense);
      canvas.height = Math.round(canvas.clientHeight * dense);
      const side = Math.min(canvas.width, canvas.height) * zoom;
      const context = canvas.getContext("2d");
      context.imageSmoothingQuality = "high";
      const [left, top] = [canvas.width / 2 - x * side, canvas.height / 2 - y * side];
      context.drawImage(image, left, top, side, side);
    }
    this.onChange(this.view);
  }

  /** Wheel: zoom. Drag: pan. Right button, or Shift: window and level. Double click: reset. */
  listen(canvas) {
    const side = () => Math.min(canvas.clientWidth, canvas.clientHeight) * this.view.zoom;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const x = this.view.x + (event.offsetX - canvas.clientWidth / 2) / side();
      const y = this.view.y + (event.offsetY - canvas.clientHeight / 2) / side();
      this.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, x, y);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.reset());
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      const { window, level, x, y } = this.view;
      if (event.buttons === 2 || event.shiftKey) {
        this.expose(window + event.movementX, level + event.movementY / 2);
      } else {
        this.look(x - event.movementX / side(), y - event.movementY / side());
      }
    });
  }
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
