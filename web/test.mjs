// node web/test.mjs NODE_MODULES CHROMIUM SITE PICTURES: the page in a real, headless Chromium on its software WebGPU.
// A text of 64 K tokens is read and every hidden fact found, a pasted one takes its place, all Cases of selfcheck hold,
// nothing reaches the console, and a browser without WebGPU is told so. Screenshots go into PICTURES.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join, normalize, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, executablePath, site, pictures] = process.argv.slice(2);
const { chromium } = await import(pathToFileURL(resolve(modules, 'playwright-core/index.mjs')));
mkdirSync(pictures, { recursive: true });

// Only what a static file server does.
const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.wasm': 'application/wasm' };
const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
    const file = join(site, path.endsWith('/') ? `${path}index.html` : path);
    const body = await readFile(file).catch(() => null);
    response.writeHead(body ? 200 : 404, { 'content-type': types[extname(file)] ?? 'application/octet-stream' });
    response.end(body ?? '');
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const address = `http://localhost:${server.address().port}/`;

/// A fresh profile each, with what software WebGPU needs, and every word of its console.
async function open(flags, test) {
    const profile = mkdtempSync(join(tmpdir(), 'rambutan-web-'));
    const browser = await chromium.launchPersistentContext(profile, {
        executablePath,
        headless: true,
        viewport: { width: 1100, height: 1240 },
        args: [
            '--no-sandbox', '--disable-dev-shm-usage', '--disable-quic', '--no-first-run', '--disable-background-networking',
            '--disable-component-update', '--disable-sync', ...flags,
        ],
    });
    const page = await browser.newPage();
    const said = [];
    page.on('console', (message) => {
        if (['error', 'warning', 'assert'].includes(message.type())) said.push(`${message.type()}: ${message.text()}`);
    });
    page.on('pageerror', (error) => said.push(`uncaught: ${error.message}`));
    page.on('requestfailed', (request) => said.push(`request failed: ${request.url()}`));
    page.on('request', (request) => {
        if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(address)) said.push(`external request: ${request.url()}`);
    });
    try {
        await page.goto(`${address}?seed=7`);
        await test(page, said);
    } catch (error) {
        await page.screenshot({ path: join(pictures, 'failure.png'), fullPage: true }).catch(() => {});
        console.error([`status: ${await page.textContent('#status').catch(() => '?')}`, ...said].join('\n'));
        throw error;
    } finally {
        await browser.close();
        rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    }
}

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
// A slow machine is no failure.
const wait = (page, test, argument, timeout = 1_800_000) => page.waitForFunction(test, argument, { timeout, polling: 200 });
const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });

const parts = {
    async missing() {
        await open([], async (page, said) => {
            await wait(page, () => !document.getElementById('trouble').hidden, null, 30_000);
            const text = await page.textContent('#trouble');
            assert.match(text, /WebGPU/);
            assert.ok(await page.isDisabled('#write'), 'nothing can be asked of a page that cannot compute');
            await picture(page, 'missing');
            assert.deepEqual(said.filter((s) => !/No available adapters/.test(s)), []);
            console.log(`missing: says "${await page.textContent('#reason')}"`);
        });
    },

    async reading() {
        await open(['--enable-unsafe-webgpu'], async (page, said) => {
            await wait(page, () => !document.getElementById('write').disabled, null, 60_000);
            const device = await page.textContent('#device');
            // The longest that the page held the browser up while it read: frames must go on.
            await page.evaluate(() => {
                window.longest = 0;
                let before = performance.now();
                const tick = (now) => { window.longest = Math.max(window.longest, now - before); before = now; requestAnimationFrame(tick); };
                requestAnimationFrame(tick);
                new PerformanceObserver((list) => list.getEntries().forEach((e) => { window.task = Math.max(window.task ?? 0, e.duration); }))
                    .observe({ type: 'longtask' });
            });
            await page.focus('#length');
            const length = Number(process.env.RAMBUTAN_WEB_TOKENS ?? 65536);
            for (let at = 16; at > Math.log2(length); at--) await page.keyboard.press('ArrowLeft');
            const start = performance.now();
            await page.click('#write');
            await wait(page, () => document.getElementById('bar').value > 0.3);
            await picture(page, 'reading');
            await wait(page, () => !document.getElementById('question').disabled);
            console.log(`reading: ${device}: ${await page.textContent('#status')}, ${seconds(start)}`);
            const held = await page.evaluate(() => [window.longest, window.task ?? 0]);
            console.log(`reading: longest time between two frames ${held[0].toFixed(0)} ms, longest task ${held[1].toFixed(0)} ms`);
            // Some milliseconds on a machine that does nothing else.
            assert.ok(held[1] < 1000, `the page kept the browser waiting for ${held[1]} ms`);
            const asking = performance.now();
            await page.click('#ask-all');
            const facts = await page.locator('#needles tr').count();
            await wait(page, (n) => document.querySelectorAll('#needles .right, #needles .wrong').length === n, facts);
            await wait(page, () => !document.getElementById('ask').disabled);
            console.log(`reading: ${facts} questions, ${seconds(asking)}`);
            await picture(page, 'answers');
            const wrong = await page.locator('#needles tr:has(.wrong)').allTextContents();
            assert.deepEqual(wrong, []);
            assert.equal(facts, 6);
            assert.deepEqual(said, []);
        });
    },

    async pasting() {
        await open(['--enable-unsafe-webgpu'], async (page, said) => {
            await wait(page, () => !document.getElementById('write').disabled);
            // A text that another one replaces while it is being read leaves no trace.
            await page.click('#write');
            await wait(page, () => /tokens/.test(document.getElementById('status').textContent));
            await page.click('#tab-paste');
            const words = 'The boats came home before noon, and nobody asked where they had been. ';
            await page.fill('#pasted', `${words.repeat(9)}|The code of Rivaze is:7731942|${words.repeat(9)}`);
            await page.click('#paste');
            await wait(page, () => !document.getElementById('question').disabled);
            await page.fill('#question', 'What is the code of Rivaze?');
            await page.click('#ask');
            await wait(page, () => document.querySelectorAll('#places li').length > 0);
            assert.equal((await page.textContent('#said')).trim(), '7731942');
            assert.match(await page.textContent('#places'), /7731942/);
            await page.hover('#map');
            assert.match(await page.textContent('#tip'), /bytes/);
            assert.ok(await page.isHidden('#hidden-facts'), 'the facts of the text before are forgotten');
            console.log('pasting: another text in place of one half read, and its answer');
            assert.deepEqual(said, []);
        });
    },

    async selfcheck() {
        await open(['--enable-unsafe-webgpu'], async (page, said) => {
            await wait(page, () => !document.getElementById('write').disabled, null, 60_000);
            const start = performance.now();
            await page.click('#selfcheck summary');
            await page.fill('#draws', process.env.RAMBUTAN_WEB_DRAWS ?? '2');
            await page.click('#check');
            let last = performance.now();
            const times = [];
            if (process.env.RAMBUTAN_WEB_TIMES) {
                await page.exposeFunction('noted', (op) => { times.push([op, performance.now() - last]); last = performance.now(); });
                await page.evaluate(() => new MutationObserver((list) => list.forEach((m) => m.addedNodes.forEach((n) => n.cells?.[0] && window.noted(n.cells[0].textContent))))
                    .observe(document.querySelector('#checks tbody'), { childList: true }));
            }
            await wait(page, () => /passed/.test(document.getElementById('check-status').textContent), null);
            console.log(`selfcheck: ${await page.textContent('#check-status')}, ${seconds(start)}`);
            times.sort((a, b) => b[1] - a[1]).slice(0, 25).forEach(([op, ms]) => console.log(`  ${op} ${(ms / 1000).toFixed(1)} s`));
            await picture(page, 'selfcheck');
            assert.deepEqual(await page.locator('#checks tr:has(.wrong)').allTextContents(), []);
            assert.ok(await page.locator('#checks tbody tr').count() > 50, 'every Case has a row');
            assert.deepEqual(said, []);
        });
    },
};

const wanted = process.env.RAMBUTAN_WEB_PARTS?.split(',') ?? Object.keys(parts);
try {
    for (const part of wanted) await parts[part]();
} finally {
    server.close();
}
