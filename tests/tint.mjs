// node tint.mjs NODE_MODULES KERNELS.json: compiles every [name, text] with Tint, through Dawn's null backend, and lists
// all complaints. The null backend needs no GPU.
import { readFileSync, writeSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

// Dawn's threads may end a process before its pipes are drained: write at once.
const say = (line) => writeSync(1, `${line}\n`);
const [modules, list] = process.argv.slice(2);
const { create } = await import(pathToFileURL(resolve(modules, 'webgpu/index.js')));
// Held to the end: Dawn dies with the instance, which would be collected otherwise.
const held = { gpu: create(['backend=null']) };
const adapter = await held.gpu.requestAdapter();
const wanted = ['shader-f16', 'subgroups'].filter((f) => adapter.features.has(f));
const device = await adapter.requestDevice({ requiredFeatures: wanted });
// The null backend offers 16 KiB of workgroup memory: a variant for larger adapters ends there, its text was judged before.
const tooLarge = (name, error) => !name.endsWith('[]') && error.message.includes('workgroup storage');
let failures = 0;
for (const [name, code] of JSON.parse(readFileSync(list, 'utf8'))) {
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code });
    const messages = (await module.getCompilationInfo()).messages.filter((m) => m.type === 'error');
    if (messages.length === 0) device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
    let error = await device.popErrorScope();
    if (error && tooLarge(name, error)) error = null;
    for (const m of messages) say(`${name}:${m.lineNum}:${m.linePos}: Tint: ${m.message}`);
    if (messages.length === 0 && error) say(`${name}: Tint: ${error.message}`);
    if (messages.length > 0 || error) failures += 1;
}
say(`Tint: ${failures} kernels refused`);
device.destroy();
held.gpu = null;
process.exitCode = failures === 0 ? 0 : 1;
