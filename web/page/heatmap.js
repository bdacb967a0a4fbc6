// The picture of a text: one cell a stretch of chunks, first as it is being read, then by how well each answers the
// question. Cells stand in rows from the beginning of the text to its end.

/// Dark to bright, as the rind of the fruit: stops of red, green, blue.
const RAMP = [[46, 16, 34], [92, 16, 54], [156, 20, 64], [212, 44, 66], [243, 110, 60], [252, 186, 92], [255, 244, 200]];
const CELLS = 4096;

/// Cells a row, so that a picture is about four times as wide as high.
const columns = (cells) => Math.min(128, Math.max(32, Math.ceil(Math.sqrt(4 * cells) / 16) * 16));

function colour(v) {
    const at = Math.max(0, Math.min(1, v)) * (RAMP.length - 1);
    const i = Math.min(Math.floor(at), RAMP.length - 2);
    return `rgb(${RAMP[i].map((c, k) => Math.round(c + (RAMP[i + 1][k] - c) * (at - i))).join(' ')})`;
}

export class Heatmap {
    /// `excerpt(offset, length)` gives the text under the pointer.
    constructor(canvas, tip, excerpt) {
        Object.assign(this, { canvas, tip, excerpt, cells: 0, chunks: 0, read: 0, values: null, chosen: [] });
        canvas.onpointermove = (event) => this.point(event);
        canvas.onpointerleave = () => { tip.hidden = true; };
        new ResizeObserver(() => this.draw()).observe(canvas);
        const legend = document.querySelector('.legend i');
        legend.style.background = `linear-gradient(90deg, ${RAMP.map((_, i) => colour(i / (RAMP.length - 1))).join(', ')})`;
    }

    begin(tokens, chunk) {
        this.chunk = chunk;
        this.chunks = Math.max(1, Math.ceil(tokens / chunk));
        this.each = Math.ceil(this.chunks / CELLS);
        this.cells = Math.ceil(this.chunks / this.each);
        this.columns = columns(this.cells);
        Object.assign(this, { tokens, read: 0, values: null, chosen: [] });
        this.draw();
    }

    get note() {
        const stretch = this.each === 1 ? `${this.chunk} bytes` : `${this.each} chunks of ${this.chunk} bytes`;
        return `Every cell is a stretch of ${stretch}, from the text’s beginning to its end.`;
    }

    progress(read) {
        this.read = read;
        this.draw();
    }

    /// `scores`: one a chunk, fewer where the last chunks cannot be selected.
    scores(scores, chosen) {
        this.chosen = chosen;
        this.raw = scores;
        this.values = null;
        if (scores?.length) {
            const best = new Float32Array(this.cells).fill(-Infinity);
            scores.forEach((v, i) => {
                const cell = Math.floor(i / this.each);
                best[cell] = Math.max(best[cell], v);
            });
            const sorted = Float32Array.from(best.filter(Number.isFinite)).sort();
            // The bulk of a text says nothing: from its tenth part on colours rise.
            const [low, high] = [sorted[Math.floor(sorted.length / 10)], sorted[sorted.length - 1]];
            this.values = best.map((v) => (Number.isFinite(v) ? Math.max(0, (v - low) / Math.max(high - low, 1e-9)) : NaN));
        }
        this.draw();
    }

    draw() {
        const { canvas } = this;
        const scale = window.devicePixelRatio || 1;
        const width = Math.round(canvas.clientWidth * scale);
        if (!width) return;
        const across = this.cells ? this.columns : 64;
        const rows = this.cells ? Math.ceil(this.cells / across) : 4;
        this.step = width / across;
        // Few cells are bars, many are squares.
        const height = Math.max(this.step * rows, 56 * scale);
        this.rise = height / rows;
        if (canvas.width !== width || canvas.height !== Math.round(height)) {
            canvas.width = width;
            canvas.height = Math.round(height);
            canvas.style.height = `${height / scale}px`;
        }
        const c = canvas.getContext('2d');
        const style = getComputedStyle(document.documentElement);
        const [empty, rind, leaf] = ['--cell', '--rind', '--leaf'].map((name) => style.getPropertyValue(name));
        const gap = this.step > 5 ? Math.max(1, this.step * 0.08) : 0;
        c.clearRect(0, 0, canvas.width, canvas.height);
        const cell = (i, inset = gap / 2) => [
            i % across * this.step + inset, Math.floor(i / across) * this.rise + inset, this.step - 2 * inset, this.rise - 2 * inset,
        ];
        const read = this.read / this.chunk / this.each;
        for (let i = 0; i < (this.cells || across * rows); i++) {
            c.globalAlpha = 1;
            c.fillStyle = empty;
            if (this.values) {
                if (!Number.isNaN(this.values[i])) c.fillStyle = colour(this.values[i] ** 1.2);
            } else if (i < read && this.cells) {
                c.globalAlpha = 0.75;
                c.fillStyle = rind;
            }
            c.fillRect(...cell(i));
        }
        c.globalAlpha = 1;
        c.lineWidth = Math.max(2 * scale, this.step * 0.14);
        c.strokeStyle = leaf;
        for (const chunk of this.chosen) c.strokeRect(...cell(Math.floor(chunk / this.each), 0));
    }

    point(event) {
        const box = this.canvas.getBoundingClientRect();
        const scale = this.canvas.width / box.width;
        const column = Math.floor((event.clientX - box.left) * scale / this.step);
        const i = Math.floor((event.clientY - box.top) * scale / this.rise) * this.columns + column;
        this.tip.hidden = !(i >= 0 && i < this.cells);
        if (this.tip.hidden) return;
        const offset = i * this.each * this.chunk;
        const title = document.createElement('b');
        const length = Math.min(this.each * this.chunk, this.tokens - offset);
        title.textContent = `bytes ${offset.toLocaleString('en-US')} to ${(offset + length).toLocaleString('en-US')}`;
        if (this.values && Number.isFinite(this.values[i])) {
            const scores = this.raw.slice(i * this.each, (i + 1) * this.each);
            title.textContent += ` · score ${scores.reduce((a, b) => Math.max(a, b), -Infinity).toFixed(2)}`;
        }
        this.tip.replaceChildren(title, this.excerpt(offset, Math.min(length, 240)));
        const left = Math.min(event.pageX + 14, document.documentElement.clientWidth - this.tip.offsetWidth - 8);
        this.tip.style.left = `${Math.max(8, left)}px`;
        this.tip.style.top = `${event.pageY + 16}px`;
    }
}
