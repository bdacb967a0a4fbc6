// The page: controls, clock and picture. What computes is wasm (rambutan_web.js, from web/src); this drives it in steps
// of a few milliseconds and yields to the browser between them.
import init, { Selfcheck, Session, ops } from './rambutan_web.js';
import { Heatmap } from './heatmap.js';

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat('en-US');
const short = (v) => new Intl.NumberFormat('en-US', { notation: 'compact', maximumSignificantDigits: 3 }).format(v);
const bytes = (v) => (v < 2 ** 30 ? `${Math.round(v / 2 ** 20)} MiB` : `${(v / 2 ** 30).toFixed(1)} GiB`);
const tokens = (v) => (v >= 2 ** 20 ? `${v / 2 ** 20} M` : `${v / 2 ** 10} K`);
const yielded = () => new Promise((resume) => { const { port1, port2 } = new MessageChannel(); port1.onmessage = resume; port2.postMessage(0); });

/// Milliseconds of a step: what a frame leaves beside the page's own work.
const BUDGET = 12;
/// Bytes written between two frames when the text is the page's own.
const PIECE = 2 ** 18;

let session = null;
let about = null;
/// The text being read or asked about; a new one ends work on the one before.
let visit = 0;
let facts = [];
const map = new Heatmap($('map'), $('tip'), (offset, length) => session.excerpt(offset, length));

function trouble(reason, advice) {
    $('reason').textContent = reason;
    $('advice').textContent = advice;
    $('trouble').hidden = false;
    $('device').textContent = 'no WebGPU';
}

async function start() {
    if (!navigator.gpu) {
        return trouble(
            window.isSecureContext
                ? 'This browser offers no WebGPU.'
                : 'WebGPU is offered to secure pages only, and this one came over plain http.',
            'Chrome and Edge from 113, Safari from 26 and Firefox from 141 have WebGPU (on some systems behind a flag); the page must come over https, or from localhost.',
        );
    }
    if (!await navigator.gpu.requestAdapter()) {
        return trouble(
            'This browser has WebGPU, but found no GPU that it trusts with it.',
            'Turn hardware acceleration on in its settings and update the GPU’s driver; chrome://gpu says why. For software rendering start Chrome with --enable-unsafe-webgpu.',
        );
    }
    const [weights] = await Promise.all([fetched('passkey.safetensors'), init()]);
    session = await Session.open(weights);
    about = JSON.parse(session.about());
    const name = about.adapter || await adapterName();
    $('device').textContent = `${name} · ${short(about.parameters)} parameters`;
    for (const id of ['write', 'paste', 'file']) $(id).disabled = false;
    shownLength();
}

async function adapterName() {
    const info = (await navigator.gpu.requestAdapter())?.info;
    return [info?.vendor, info?.architecture].filter(Boolean).join(' ') || 'WebGPU';
}

async function fetched(name) {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
    return new Uint8Array(await response.arrayBuffer());
}

// The text.

function shownLength() {
    const n = 2 ** $('length').value;
    $('length-shown').textContent = `${tokens(n)} tokens`;
    $('length-cost').textContent = about
        ? `one byte each; their memory takes ${bytes(n * about.bytes_per_token)} of the GPU’s`
        : '';
}

async function written() {
    const mine = begin();
    const total = 2 ** $('length').value;
    // ?seed=N writes the same text again.
    const seed = Number(new URLSearchParams(location.search).get('seed') ?? Math.floor(Math.random() * 2 ** 32));
    session.begin(seed);
    while (session.tokens() < total) {
        session.write(Math.min(PIECE, total - session.tokens()));
        $('status').textContent = `Writing: ${number.format(session.tokens())} of ${number.format(total)} bytes`;
        await yielded();
        if (mine !== visit) return;
    }
    facts = JSON.parse(session.hide(Math.max(1, Math.min(40, $('facts').valueAsNumber || 6)), seed));
    await read(mine);
}

async function taken(blob) {
    const mine = begin();
    const data = new Uint8Array(await blob.arrayBuffer());
    if (mine !== visit) return;
    if (data.length === 0) {
        $('status').textContent = 'That text is empty: there is nothing to ask about.';
        return;
    }
    session.take(data);
    await read(mine);
}

/// Forgets the text before; the number that stands for the new one.
function begin() {
    facts = [];
    $('answer').hidden = $('hidden-facts').hidden = $('legend').hidden = true;
    $('question').disabled = $('ask').disabled = true;
    return ++visit;
}

async function read(mine) {
    const total = session.tokens();
    const start = performance.now();
    map.begin(total, about.chunk);
    $('map-note').textContent = map.note;
    $('cancel').hidden = false;
    let done = 0;
    while (done < total && mine === visit) {
        done = await session.step(BUDGET);
        const rate = done / (performance.now() - start) * 1000;
        $('bar').value = done / total;
        $('status').textContent =
            `${number.format(done)} of ${number.format(total)} tokens · ${short(rate)} a second · ${bytes(session.device_bytes())} of GPU memory`;
        map.progress(done);
        await yielded();
    }
    $('cancel').hidden = true;
    if (mine !== visit) return;
    $('question').disabled = $('ask').disabled = false;
    $('question').value = facts.length ? facts[0].question.replace(/^\|/, '').replace(/\?.*/, '?') : 'What is the passkey?';
    shownFacts();
}

// Questions.

function shownFacts() {
    $('hidden-facts').hidden = facts.length === 0;
    $('needles').replaceChildren(...facts.map((fact) => {
        const row = document.createElement('tr');
        const ask = document.createElement('button');
        ask.textContent = fact.question.replace(/^\|/, '').replace(/\?.*/, '?');
        ask.onclick = () => guarded(() => asked(fact.question, fact));
        for (const content of [`${(fact.position / session.tokens() * 100).toFixed(1)} %`, ask, fact.answer, fact.said ?? '']) {
            row.insertCell().append(content);
        }
        if (fact.said !== undefined) {
            row.cells[3].textContent = fact.said === fact.answer ? '✓ found' : `✗ ${fact.said}`;
            row.cells[3].className = fact.said === fact.answer ? 'right' : 'wrong';
        }
        return row;
    }));
}

async function asked(question, fact) {
    const mine = visit;
    const start = performance.now();
    $('ask').disabled = $('ask-all').disabled = true;
    $('answer').hidden = false;
    $('said').textContent = '…';
    $('verdict').textContent = '';
    $('took').textContent = 'looking through the whole text';
    $('places').replaceChildren();
    try {
        const said = await session.ask(question, BUDGET, (beginning) => {
            if (mine !== visit) return;
            $('answer').hidden = false;
            $('said').textContent = beginning.replace(/\|$/, '');
        });
        if (mine !== visit) return;
        const answer = { ...JSON.parse(said.answer), scores: said.scores, ms: performance.now() - start };
        said.free();
        shownAnswer(question, answer, fact ?? facts.find((f) => f.question === answer.prompt));
    } finally {
        $('ask').disabled = $('ask-all').disabled = false;
    }
}

function shownAnswer(question, answer, fact) {
    $('answer').hidden = false;
    $('said').textContent = answer.answer + (answer.complete ? '' : ' …');
    $('verdict').textContent = '';
    if (fact) {
        fact.said = answer.answer;
        const right = fact.said === fact.answer;
        $('verdict').textContent = right ? '✓ as it was hidden' : `✗ hidden was ${fact.answer}`;
        $('verdict').className = right ? 'right' : 'wrong';
        shownFacts();
    }
    $('question').value = question.replace(/^\|/, '').replace(/\?.*/, '?');
    const chunks = Math.ceil(session.tokens() / about.chunk);
    $('took').textContent =
        `in ${Math.round(answer.ms)} ms; its first token looked into ${answer.places.length} of ${number.format(chunks)} chunks:`;
    const most = Math.max(...answer.places.map((place) => place.weight));
    $('places').replaceChildren(...answer.places.map((place) => {
        const row = document.createElement('li');
        const [at, weight, excerpt] = ['span', 'span', 'code'].map((tag) => document.createElement(tag));
        at.textContent = `byte ${number.format(place.offset)}`;
        weight.className = 'weight';
        weight.title = `weight ${place.weight.toFixed(3)}`;
        weight.append(document.createElement('i'));
        weight.firstChild.style.width = `${place.weight / most * 100}%`;
        marked(excerpt, place.excerpt, answer.answer);
        row.append(at, weight, excerpt);
        return row;
    }));
    map.scores(answer.scores, answer.places.map((place) => place.chunk));
    $('legend').hidden = answer.scores.length === 0;
}

/// The excerpt with the answer marked where it stands in it.
function marked(element, excerpt, answer) {
    const at = answer.length > 2 ? excerpt.indexOf(answer) : -1;
    if (at < 0) return element.append(excerpt);
    const mark = document.createElement('mark');
    mark.textContent = answer;
    element.append(excerpt.slice(0, at), mark, excerpt.slice(at + answer.length));
}

async function allAsked() {
    const mine = visit;
    for (const fact of facts) {
        if (mine !== visit) return;
        await asked(fact.question, fact);
    }
}

// Every kernel against its definition.

async function checked() {
    const rows = $('checks').tBodies[0];
    rows.replaceChildren();
    $('checks').hidden = false;
    $('check').disabled = true;
    const names = ops();
    const draws = Math.max(1, Math.min(6, $('draws').valueAsNumber || 2));
    let failed = 0, skipped = 0;
    try {
        const check = await Selfcheck.open();
        for (let i = 0; i < names.length; i++) {
            $('check-status').textContent = `${i + 1} of ${names.length}: ${names[i]}`;
            await yielded();
            const result = JSON.parse(await check.run(i, draws));
            const verdict = result.ok === null ? 'not for this adapter' : result.ok ? '✓' : `✗ ${result.failures.join(' · ')}`;
            failed += result.ok === false;
            skipped += result.ok === null;
            const error = (v) => (result.ok === null ? '' : v.toExponential(1));
            const row = rows.insertRow();
            for (const text of [result.op, result.sizes?.length ?? '', error(result.worst), error(result.allowed), verdict]) {
                row.insertCell().textContent = text;
            }
            row.cells[4].className = { true: 'right', false: 'wrong', null: 'soft' }[result.ok];
        }
        $('check-status').textContent =
            `${names.length - skipped - failed} of ${names.length - skipped} passed` + (skipped ? `, ${skipped} are not for this adapter` : '');
        check.free();
    } finally {
        $('check').disabled = false;
    }
    return { failed, skipped, all: names.length };
}

// Controls.

async function guarded(work) {
    try {
        return await work();
    } catch (error) {
        console.error(error);
        $('cancel').hidden = true;
        $('status').textContent = `That failed: ${error.message ?? error}. A shorter text needs less memory; reload the page to begin anew.`;
    }
}

const tabs = ['write', 'paste', 'file'];
function shownTab(name) {
    for (const tab of tabs) {
        $(`pane-${tab}`).hidden = tab !== name;
        $(`tab-${tab}`).setAttribute('aria-selected', tab === name);
        $(`tab-${tab}`).tabIndex = tab === name ? 0 : -1;
    }
}
for (const [i, tab] of tabs.entries()) {
    $(`tab-${tab}`).onclick = () => shownTab(tab);
    $(`tab-${tab}`).onkeydown = (event) => {
        const step = { ArrowRight: 1, ArrowLeft: tabs.length - 1 }[event.key];
        if (!step) return;
        const next = tabs[(i + step) % tabs.length];
        shownTab(next);
        $(`tab-${next}`).focus();
    };
}
$('length').oninput = shownLength;
$('write').onclick = () => guarded(written);
$('paste').onclick = () => guarded(() => taken(new Blob([$('pasted').value])));
$('file').onchange = (event) => event.target.files[0] && guarded(() => taken(event.target.files[0]));
$('cancel').onclick = () => {
    visit++;
    $('status').textContent += ' · stopped';
};
$('form').onsubmit = (event) => {
    event.preventDefault();
    const question = $('question').value.trim();
    if (question) guarded(() => asked(question));
};
$('ask-all').onclick = () => guarded(allAsked);
$('check').onclick = () => guarded(checked);
for (const event of ['dragover', 'dragleave', 'drop']) {
    document.addEventListener(event, (e) => {
        e.preventDefault();
        document.body.classList.toggle('dropping', event === 'dragover');
        const file = event === 'drop' && session && e.dataTransfer?.files[0];
        if (file) {
            shownTab('file');
            guarded(() => taken(file));
        }
    });
}

shownLength();
start().catch((error) => {
    console.error(error);
    trouble(`It did not start: ${error.message ?? error}`, 'Reload the page; if that does not help, the browser’s console may say more.');
});
