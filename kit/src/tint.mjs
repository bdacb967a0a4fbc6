// node tint.mjs NODE_MODULES KERNELS.json: compiles every [name, text] with Tint, through Dawn's null backend, which needs
// no GPU. The last line is a list of complaints, one a kernel, empty where it is taken. An empty text is left out.
import { readFileSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, list] = process.argv.slice(2);
const { create } = await import(pathToFileURL(resolve(modules, 'webgpu/index.js')));
// Held to the end: Dawn dies with the instance, which would be collected otherwise.
const held = { gpu: create(['backend=null']) };
const adapter = await held.gpu.requestAdapter();
const wanted = ['shader-f16', 'subgroups'].filter((f) => adapter.features.has(f));
const device = await adapter.requestDevice({ requiredFeatures: wanted });
// The null backend offers 16 KiB of workgroup memory and 8 storage buffers: a variant for larger adapters ends there, its
// text was judged before.
const tooLarge = (error) => /workgroup storage|number of storage buffers/.test(error.message);
const complaints = [];
for (const [name, code] of JSON.parse(readFileSync(list, 'utf8'))) {
    if (code === '') {
        complaints.push('');
        continue;
    }
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code });
    const messages = (await module.getCompilationInfo()).messages.filter((m) => m.type === 'error');
    if (messages.length === 0) device.createComputePipeline({ layout: 'auto', compute: { module } });
    let error = await device.popErrorScope();
    if (error && tooLarge(error)) error = null;
    const lines = messages.map((m) => `${name}:${m.lineNum}:${m.linePos}: ${m.message}`);
    if (messages.length === 0 && error) lines.push(`${name}: ${error.message}`);
    complaints.push(lines.join('\n'));
}
// Dawn's threads may end a process before its pipes are drained: write at once.
const text = Buffer.from(`\n${JSON.stringify(complaints)}\n`);
for (let at = 0; at < text.length; ) at += writeSync(1, text, at);
device.destroy();
held.gpu = null;
