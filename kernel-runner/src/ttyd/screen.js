// The screen of a terminal: takes what programs print and knows what is to be seen. It is
// what xterm calls itself, without mouse, sixel and answers to questions: what is shown
// again after a reload would be answered again.
'use strict';

const PLAIN = Object.freeze({ fg: null, bg: null, flags: '' });
const BLANK = Object.freeze({ text: ' ', style: PLAIN, width: 1 });
// The right half of a wide character.
const SHADOW = Object.freeze({ text: '', style: PLAIN, width: 0 });
const HISTORY = 5000;
const LONGEST_COMMAND = 4096;
const FLAGS = { 1: 'bold', 2: 'dim', 3: 'italic', 4: 'underline', 7: 'inverse', 8: 'hidden', 9: 'strike' };
const NOT_FLAGS = { 22: ['bold', 'dim'], 23: ['italic'], 24: ['underline'], 27: ['inverse'], 28: ['hidden'], 29: ['strike'] };
const COLOURS = ['#2e3440', '#d0555f', '#8fbf6f', '#e0b860', '#6a9fd8', '#b98ac8', '#5fb8c8', '#d8dee9',
  '#5c6678', '#ef7680', '#aee08c', '#f5d585', '#8dbdf0', '#d6a8e6', '#84d8e6', '#ffffff'];
const LINES = Object.fromEntries([...'`afgjklmnopqrstuvwxyz{|}~'].map((from, i) => [from, [...'◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·'][i]]));
const MARK = /^[\p{Mn}\p{Me}\u200b-\u200d\ufe00-\ufe0f]$/u;
const WIDE = /^[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]$|^[\u{1f300}-\u{1f64f}\u{1f680}-\u{1f6ff}\u{1f900}-\u{1f9ff}\u{20000}-\u{3fffd}]$/u;

function colour(number) {
  if (number < 16) return COLOURS[number];
  if (number >= 232) return `rgb(${Array(3).fill(8 + 10 * (number - 232))})`;
  const level = (step) => (step ? 55 + 40 * step : 0);
  const cube = number - 16;
  return `rgb(${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level)})`;
}

class Screen {
  constructor(cols, rows) {
    this.cols = cols;
    this.rows = rows;
    // Rows that left the top of the screen, until whoever shows them takes them.
    this.scrolled = [];
    this.title = null;
    this.reset();
  }

  reset() {
    this.style = PLAIN;
    this.cleared = true;
    this.scrolled = [];
    this.lines = Array.from({ length: this.rows }, () => this.blankLine());
    this.other = null;
    this.x = this.y = 0;
    this.wrapping = false;
    this.top = 0;
    this.bottom = this.rows - 1;
    this.modes = { wrap: true, cursor: true };
    this.charsets = [false, false];
    this.charset = 0;
    this.saved = null;
    this.tabs = new Set(Array.from({ length: 512 }, (_, i) => i * 8));
    this.last = null;
    this.state = 'text';
    this.command = '';
    this.dirty = new Set(this.lines.keys());
  }

  blankLine() {
    return Array(this.cols).fill(this.blank());
  }

  blank() {
    return this.style.bg ? { text: ' ', style: { ...PLAIN, bg: this.style.bg }, width: 1 } : BLANK;
  }

  resize(cols, rows) {
    const fit = (lines) => {
      for (const line of lines) {
        while (line.length < cols) line.push(BLANK);
        line.length = cols;
      }
      while (lines.length < rows) lines.push(Array(cols).fill(BLANK));
    };
    // The lines around the cursor stay.
    const surplus = Math.max(0, Math.min(this.lines.length - rows, this.y - rows + 1));
    const gone = this.lines.splice(0, surplus);
    if (!this.other) this.scrolled.push(...gone);
    [this.cols, this.rows] = [cols, rows];
    for (const lines of [this.lines, this.other?.lines ?? []]) {
      if (!lines.length) continue;
      fit(lines);
      lines.length = rows;
    }
    this.top = 0;
    this.bottom = rows - 1;
    this.move(this.x, this.y - surplus);
    this.dirty = new Set(this.lines.keys());
  }

  write(text) {
    for (const character of text) this[this.state](character);
  }

  // States of the parser: each takes one character.

  text(c) {
    if (c >= ' ' && c !== '\x7f') return this.print(c);
    switch (c) {
      case '\x1b': this.state = 'escape'; break;
      case '\b': this.move(this.x - 1, this.y); break;
      case '\t': this.tab(1); break;
      case '\n': case '\v': case '\f': this.feed(); break;
      case '\r': this.move(0, this.y); break;
      case '\x0e': this.charset = 1; break;
      case '\x0f': this.charset = 0; break;
    }
  }

  escape(c) {
    this.state = 'text';
    this.command = '';
    switch (c) {
      case '[': this.state = 'control'; break;
      case ']': this.state = 'system'; break;
      case 'P': case 'X': case '^': case '_': this.state = 'ignored'; break;
      case '(': this.state = 'charset0'; break;
      case ')': this.state = 'charset1'; break;
      case '*': case '+': case '#': case '%': case ' ': this.state = 'skipped'; break;
      case '7': this.save(); break;
      case '8': this.restore(); break;
      case 'D': this.feed(); break;
      case 'E': this.move(0, this.y); this.feed(); break;
      case 'H': this.tabs.add(this.x); break;
      case 'M': this.reverseFeed(); break;
      case 'c': this.reset(); break;
      case '=': this.modes.keypad = true; break;
      case '>': this.modes.keypad = false; break;
    }
  }

  control(c) {
    if (c >= '@' && c <= '~') {
      this.state = 'text';
      this.carryOut(c, this.command);
    } else if (c === '\x1b') {
      this.escapeFrom();
    } else if (c < ' ') {
      // Such a character counts even in the middle of a sequence.
      const inside = this.command;
      this.text(c);
      [this.state, this.command] = ['control', inside];
    } else if (this.command.length < LONGEST_COMMAND) {
      this.command += c;
    }
  }

  system(c) {
    if (c === '\x07' || c === '\x1b') {
      const [, kind, value] = this.command.match(/^(\d*);(.*)$/s) ?? [];
      if (kind === '0' || kind === '2') this.title = value;
      if (c === '\x1b') this.escapeFrom();
      else this.state = 'text';
    } else if (this.command.length < LONGEST_COMMAND) {
      this.command += c;
    }
  }

  ignored(c) { if (c === '\x1b') this.escapeFrom(); else if (c === '\x07') this.state = 'text'; }
  skipped() { this.state = 'text'; }
  charset0(c) { this.charsets[0] = c === '0'; this.state = 'text'; }
  charset1(c) { this.charsets[1] = c === '0'; this.state = 'text'; }

  // The end of a string is an escape sequence too, which does nothing.
  escapeFrom() { this.state = 'escape'; }

  carryOut(c, command) {
    const mark = /^[<=>?]/.test(command) ? command[0] : '';
    const args = command.slice(mark.length).split(/[;:]/).map((arg) => parseInt(arg, 10) || 0);
    const n = Math.max(1, args[0]);
    if (mark === '?' && (c === 'h' || c === 'l')) return args.forEach((arg) => this.setMode(arg, c === 'h'));
    if (mark) return;
    switch (c) {
      case 'A': this.move(this.x, Math.max(this.y - n, this.y >= this.top ? this.top : 0)); break;
      case 'B': case 'e': this.move(this.x, Math.min(this.y + n, this.y <= this.bottom ? this.bottom : this.rows)); break;
      case 'C': case 'a': this.move(this.x + n, this.y); break;
      case 'D': this.move(this.x - n, this.y); break;
      case 'E': this.move(0, this.y + n); break;
      case 'F': this.move(0, this.y - n); break;
      case 'G': case '`': this.move(n - 1, this.y); break;
      case 'H': case 'f': this.goTo((args[1] || 1) - 1, n - 1); break;
      case 'I': this.tab(n); break;
      case 'Z': this.tab(-n); break;
      case 'J': this.eraseScreen(args[0]); break;
      case 'K': this.eraseLine(args[0]); break;
      case 'L': if (this.inRegion()) this.scroll(this.y, this.bottom, -n); break;
      case 'M': if (this.inRegion()) this.scroll(this.y, this.bottom, n); break;
      case 'P': this.edit((line) => { line.splice(this.x, n); }); break;
      case '@': this.edit((line) => { line.splice(this.x, 0, ...Array(Math.min(n, this.cols)).fill(this.blank())); }); break;
      case 'X': this.edit((line) => { line.fill(this.blank(), this.x, this.x + n); }); break;
      case 'S': this.scroll(this.top, this.bottom, n); break;
      case 'T': this.scroll(this.top, this.bottom, -n); break;
      case 'b': if (this.last) for (let i = 0; i < Math.min(n, this.cols * this.rows); i++) this.print(this.last); break;
      case 'd': this.goTo(this.x, n - 1); break;
      case 'g': if (args[0] === 3) this.tabs.clear(); else this.tabs.delete(this.x); break;
      case 'h': case 'l': if (args.includes(4)) this.modes.insert = c === 'h'; break;
      case 'm': this.setStyle(args); break;
      case 'r': {
        const bottom = Math.min(args[1] || this.rows, this.rows) - 1;
        if (n - 1 < bottom) [this.top, this.bottom] = [n - 1, bottom];
        this.goTo(0, 0);
        break;
      }
      case 's': this.save(); break;
      case 'u': this.restore(); break;
      case 'p': if (command === '!') { this.modes = { wrap: true, cursor: true }; this.style = PLAIN; this.top = 0; this.bottom = this.rows - 1; } break;
    }
  }

  setMode(mode, on) {
    switch (mode) {
      case 1: this.modes.cursorKeys = on; break;
      case 6: this.modes.origin = on; this.goTo(0, 0); break;
      case 7: this.modes.wrap = on; break;
      case 25: this.modes.cursor = on; this.dirty.add(this.y); break;
      case 2004: this.modes.bracket = on; break;
      case 47: case 1047: this.alternate(on); break;
      case 1048: if (on) this.save(); else this.restore(); break;
      case 1049:
        if (on && !this.other) this.save();
        this.alternate(on);
        if (!on) this.restore();
        break;
    }
  }

  // The screen of full-screen programs has no history.
  alternate(on) {
    if (on === Boolean(this.other)) return;
    if (on) {
      this.other = { lines: this.lines };
      this.lines = Array.from({ length: this.rows }, () => this.blankLine());
    } else {
      this.lines = this.other.lines;
      this.other = null;
    }
    this.dirty = new Set(this.lines.keys());
  }

  setStyle(args) {
    const style = { ...this.style };
    const flags = new Set(style.flags.split(' ').filter(Boolean));
    for (let i = 0; i < args.length; i++) {
      const arg = args[i];
      if (arg === 0) { style.fg = style.bg = null; flags.clear(); }
      else if (FLAGS[arg]) flags.add(FLAGS[arg]);
      else if (NOT_FLAGS[arg]) NOT_FLAGS[arg].forEach((flag) => flags.delete(flag));
      else if (arg === 38 || arg === 48) {
        let value = null;
        if (args[i + 1] === 5) { value = colour(args[i + 2] & 255); i += 2; }
        else if (args[i + 1] === 2) { value = `rgb(${args.slice(i + 2, i + 5).map((v) => v & 255)})`; i += 4; }
        style[arg === 38 ? 'fg' : 'bg'] = value;
      } else if (arg === 39) style.fg = null;
      else if (arg === 49) style.bg = null;
      else if (arg >= 30 && arg <= 37) style.fg = COLOURS[arg - 30];
      else if (arg >= 40 && arg <= 47) style.bg = COLOURS[arg - 40];
      else if (arg >= 90 && arg <= 97) style.fg = COLOURS[arg - 82];
      else if (arg >= 100 && arg <= 107) style.bg = COLOURS[arg - 92];
    }
    style.flags = [...flags].join(' ');
    this.style = Object.freeze(style);
  }

  print(c) {
    if (this.charsets[this.charset]) c = LINES[c] ?? c;
    if (c >= '\u0300' && MARK.test(c)) return this.combine(c);
    const width = c >= '\u1100' && WIDE.test(c) ? 2 : 1;
    if (this.wrapping || this.x + width > this.cols) {
      if (this.modes.wrap) { this.move(0, this.y); this.feed(); }
      else this.x = Math.max(0, this.cols - width);
    }
    const line = this.lines[this.y];
    const cell = { text: c, style: this.style, width };
    if (width === 1 && line[this.x].width === 1 && !this.modes.insert) {
      line[this.x] = cell;
    } else {
      // Half a wide character is none.
      if (line[this.x].width === 0) line[this.x - 1] = BLANK;
      line.splice(this.x, this.modes.insert ? 0 : width, cell, ...(width === 2 ? [SHADOW] : []));
      if (line[this.x + width]?.width === 0) line[this.x + width] = BLANK;
      line.length = this.cols;
    }
    this.last = c;
    this.dirty.add(this.y);
    this.wrapping = this.x + width >= this.cols && Boolean(this.modes.wrap);
    this.x = Math.min(this.x + width, this.cols - 1);
  }

  combine(mark) {
    const line = this.lines[this.y];
    let at = this.wrapping ? this.x : this.x - 1;
    if (line[at]?.width === 0) at--;
    const cell = line[at];
    if (!cell || cell.text.length > 16) return;
    line[at] = { ...cell, text: cell.text + mark };
    this.dirty.add(this.y);
  }

  edit(change) {
    const line = this.lines[this.y];
    change(line);
    while (line.length < this.cols) line.push(this.blank());
    line.length = this.cols;
    this.wrapping = false;
    this.dirty.add(this.y);
  }

  eraseLine(what) {
    const [from, to] = [[this.x, this.cols], [0, this.x + 1], [0, this.cols]][what] ?? [0, 0];
    this.edit((line) => line.fill(this.blank(), from, to));
  }

  eraseScreen(what) {
    if (what === 3) { this.cleared = true; this.scrolled = []; return; }
    if (what < 2) this.eraseLine(what);
    const [from, to] = [[this.y + 1, this.rows], [0, this.y], [0, this.rows]][what] ?? [0, 0];
    for (let y = from; y < to; y++) {
      this.lines[y] = this.blankLine();
      this.dirty.add(y);
    }
  }

  inRegion() { return this.y >= this.top && this.y <= this.bottom; }

  // Moves lines up, or down if `by` is negative.
  scroll(top, bottom, by) {
    const count = Math.min(Math.abs(by), bottom - top + 1);
    for (let i = 0; i < count; i++) {
      if (by > 0) {
        const [line] = this.lines.splice(top, 1);
        if (top === 0 && !this.other) this.remember(line);
        this.lines.splice(bottom, 0, this.blankLine());
      } else {
        this.lines.splice(bottom, 1);
        this.lines.splice(top, 0, this.blankLine());
      }
    }
    for (let y = top; y <= bottom; y++) this.dirty.add(y);
  }

  remember(line) {
    this.scrolled.push(line);
    if (this.scrolled.length > 2 * HISTORY) this.scrolled.splice(0, HISTORY);
  }

  feed() {
    if (this.y === this.bottom) this.scroll(this.top, this.bottom, 1);
    else this.move(this.x, this.y + 1);
    this.wrapping = false;
  }

  reverseFeed() {
    if (this.y === this.top) this.scroll(this.top, this.bottom, -1);
    else this.move(this.x, this.y - 1);
  }

  tab(count) {
    let x = this.x;
    for (let left = Math.abs(count); left > 0; left--) {
      do x += Math.sign(count); while (x > 0 && x < this.cols - 1 && !this.tabs.has(x));
    }
    this.move(x, this.y);
  }

  // Counts from the region's top where a program asked for that.
  goTo(x, y) {
    if (!this.modes.origin) return this.move(x, y);
    this.move(x, Math.min(this.top + y, this.bottom));
  }

  move(x, y) {
    this.dirty.add(this.y);
    this.x = Math.max(0, Math.min(x, this.cols - 1));
    this.y = Math.max(0, Math.min(y, this.rows - 1));
    this.wrapping = false;
    this.dirty.add(this.y);
  }

  save() {
    const { x, y, style, charset } = this;
    this.saved = { x, y, style, charset, charsets: [...this.charsets], origin: this.modes.origin };
  }

  restore() {
    const saved = this.saved ?? { x: 0, y: 0, style: PLAIN, charset: 0, charsets: [false, false] };
    [this.style, this.charset, this.charsets] = [saved.style, saved.charset, [...saved.charsets]];
    this.modes.origin = saved.origin;
    this.move(saved.x, saved.y);
  }
}
