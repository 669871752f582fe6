// Shows a `Screen`, sends what is typed, and keeps the websocket.
const RETRY = { first: 250, last: 4000 };
const KEYS = { Enter: '\r', Backspace: '\x7f', Tab: '\t', Escape: '\x1b', Delete: '\x1b[3~', Insert: '\x1b[2~',
  PageUp: '\x1b[5~', PageDown: '\x1b[6~', F1: '\x1bOP', F2: '\x1bOQ', F3: '\x1bOR', F4: '\x1bOS', F5: '\x1b[15~',
  F6: '\x1b[17~', F7: '\x1b[18~', F8: '\x1b[19~', F9: '\x1b[20~', F10: '\x1b[21~', F11: '\x1b[23~', F12: '\x1b[24~' };
const CURSOR_KEYS = { ArrowUp: 'A', ArrowDown: 'B', ArrowRight: 'C', ArrowLeft: 'D', End: 'F', Home: 'H' };

const [BACKGROUND, FOREGROUND] = ['#101418', '#d8dee9'];

const [view, history, lines, probe, keys, notice] =
  ['view', 'history', 'screen', 'probe', 'keys', 'notice'].map((id) => document.getElementById(id));
const encoder = new TextEncoder();
const terminal = new Screen(...Object.values(measure()));
let socket = null;
let retry = RETRY.first;
let ended = false;
let painting = false;

function measure() {
  const cell = probe.getBoundingClientRect();
  const style = getComputedStyle(view);
  const width = view.clientWidth - 2 * parseFloat(style.paddingLeft);
  const height = view.clientHeight - 2 * parseFloat(style.paddingTop);
  const clamp = (count) => Math.max(2, Math.min(1000, Math.floor(count) || 0));
  return { columns: clamp((10 * width) / cell.width), rows: clamp(height / parseFloat(style.lineHeight)) };
}

function connect() {
  const url = new URL('ws', location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  const decoder = new TextDecoder();
  socket = new WebSocket(url, ['tty']);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    retry = RETRY.first;
    notice.textContent = '';
    // All that is kept comes again.
    terminal.reset();
    socket.send(encoder.encode(JSON.stringify({ AuthToken: '', ...measure() })));
  };
  socket.onmessage = ({ data }) => {
    const content = new Uint8Array(data, 1);
    switch (String.fromCharCode(new Uint8Array(data, 0, 1)[0])) {
      case '0': terminal.write(decoder.decode(content, { stream: true })); break;
      case '1': document.title = new TextDecoder().decode(content); break;
    }
    paintSoon();
  };
  socket.onclose = ({ code, reason }) => {
    ended = code === 1000;
    if (ended) {
      notice.textContent = `${reason || 'closed'}; press Enter for a new one`;
    } else {
      notice.textContent = 'connecting again…';
      setTimeout(connect, retry);
      retry = Math.min(2 * retry, RETRY.last);
    }
  };
}

function send(text) {
  if (ended) {
    if (text !== '\r') return;
    ended = false;
    connect();
  } else if (socket.readyState === WebSocket.OPEN && text) {
    socket.send(encoder.encode(`0${text}`));
    view.scrollTop = view.scrollHeight;
  }
}

// What is seen.

function paintSoon() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(paint);
}

function paint() {
  painting = false;
  const atEnd = view.scrollTop + view.clientHeight >= view.scrollHeight - 4;
  if (terminal.title !== null) document.title = terminal.title;
  if (terminal.cleared) history.replaceChildren();
  terminal.cleared = false;
  history.append(...terminal.scrolled.splice(0).slice(-HISTORY).map((line) => show(line, -1)));
  while (history.childElementCount > HISTORY) history.firstElementChild.remove();
  while (lines.childElementCount < terminal.rows) lines.append(document.createElement('div'));
  while (lines.childElementCount > terminal.rows) lines.lastElementChild.remove();
  for (const y of terminal.dirty) {
    if (y >= terminal.rows) continue;
    const cursor = y === terminal.y && terminal.modes.cursor ? terminal.x : -1;
    lines.children[y].replaceWith(show(terminal.lines[y], cursor));
  }
  terminal.dirty.clear();
  if (atEnd) view.scrollTop = view.scrollHeight;
}

// A line's cells, those of one style together. The cursor and wide characters have a box of
// their own.
function show(line, cursor) {
  const runs = [];
  line.forEach((cell, x) => {
    const isCursor = x === cursor;
    const alone = isCursor || cell.width === 2;
    const last = runs.at(-1);
    if (!cell.text && !isCursor) return;
    if (last && !last.alone && !alone && last.style === cell.style) last.text += cell.text;
    else runs.push({ ...cell, alone, isCursor });
  });
  const row = document.createElement('div');
  row.append(...runs.map(span));
  return row;
}

function span({ text, style, width, isCursor }) {
  const element = document.createElement('span');
  let [fg, bg] = [style.fg, style.bg];
  if (style.flags.includes('inverse')) [fg, bg] = [bg ?? BACKGROUND, fg ?? FOREGROUND];
  if (style.flags.includes('hidden')) fg = bg ?? BACKGROUND;
  if (fg) element.style.color = fg;
  if (bg) element.style.background = bg;
  element.className = [style.flags, width === 2 ? 'wide' : '', isCursor ? 'cursor' : ''].join(' ').trim();
  element.textContent = text;
  return element;
}

// What is typed.

function sequence(event) {
  const modifiers = 1 + event.shiftKey + 2 * event.altKey + 4 * event.ctrlKey;
  const letter = CURSOR_KEYS[event.key];
  if (letter) {
    if (modifiers > 1) return `\x1b[1;${modifiers}${letter}`;
    return (terminal.modes.cursorKeys ? '\x1bO' : '\x1b[') + letter;
  }
  if (event.key === 'Tab' && event.shiftKey) return '\x1b[Z';
  if (KEYS[event.key]) return (event.altKey ? '\x1b' : '') + KEYS[event.key];
  if (event.key.length !== 1) return null;
  if (event.ctrlKey && !event.altKey && !event.shiftKey) {
    if (/[a-z[\\\]^_]/i.test(event.key)) return String.fromCharCode(event.key.toUpperCase().charCodeAt(0) & 31);
    return { ' ': '\0', '@': '\0', '/': '\x1f', '?': '\x7f' }[event.key] ?? null;
  }
  return event.altKey && !event.ctrlKey && event.key <= '~' ? `\x1b${event.key}` : null;
}

keys.addEventListener('keydown', (event) => {
  if (event.isComposing || event.metaKey) return;
  const text = sequence(event);
  if (text === null) return;
  // A selection is copied, not interrupted.
  if (text === '\x03' && String(getSelection())) return;
  if (text === '\x16') return;
  event.preventDefault();
  send(text);
});

keys.addEventListener('input', (event) => {
  if (event.isComposing) return;
  send(keys.value.replace(/\n/g, '\r'));
  keys.value = '';
});
keys.addEventListener('compositionend', () => {
  send(keys.value);
  keys.value = '';
});
keys.addEventListener('paste', (event) => {
  event.preventDefault();
  const text = event.clipboardData.getData('text').replace(/\r?\n/g, '\r').replaceAll('\x1b', '');
  send(terminal.modes.bracket ? `\x1b[200~${text}\x1b[201~` : text);
});

view.addEventListener('mouseup', () => {
  if (!String(getSelection())) keys.focus();
});
document.addEventListener('keydown', (event) => {
  // Typing counts wherever the focus is; copying needs the selection left alone.
  if (document.activeElement !== keys && !event.ctrlKey && !event.metaKey) keys.focus();
});

window.addEventListener('resize', () => {
  const size = measure();
  if (size.columns === terminal.cols && size.rows === terminal.rows) return;
  terminal.resize(size.columns, size.rows);
  if (socket.readyState === WebSocket.OPEN) socket.send(encoder.encode(`1${JSON.stringify(size)}`));
  paintSoon();
});

keys.focus();
connect();
