/** How to start a VM with a disk of ours: the command lines that the target itself prints, for the hypervisors that can. */

import { showText } from './dialog.js';
import { h, setText } from './dom.js';

const GUEST_MEMORY = '2G';

/** Quotes a word for a POSIX shell, if it needs that. @param {string} word */
export function shellQuote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** QEMU 10.1 or later. @param {string} path */
export function qemuCommand(path) {
  const device = { driver: 'vfio-user-pci', socket: { type: 'unix', path } };
  return [
    'qemu-system-x86_64 -accel kvm -accel tcg -cpu max \\',
    `  -m ${GUEST_MEMORY} -object memory-backend-memfd,id=mem,size=${GUEST_MEMORY},share=on \\`,
    '  -machine q35,memory-backend=mem \\',
    `  -device ${shellQuote(JSON.stringify(device))}`,
  ].join('\n');
}

/** @param {string} path */
export function cloudHypervisorCommand(path) {
  // Its option parser takes a value in double quotes as it is.
  const value = /[,"[\]]/.test(path) ? `"${path}"` : path;
  return [
    `cloud-hypervisor --memory size=${GUEST_MEMORY},shared=on \\`,
    `  --user-device ${shellQuote(`socket=${value}`)}`,
  ].join('\n');
}

/** @param {HTMLElement} source */
async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent ?? '');
    return true;
  } catch {
    // Only pages of https or of this machine have a clipboard; others can copy what is selected.
    getSelection()?.selectAllChildren(source);
    return document.execCommand('copy');
  }
}

/** @param {string} name @param {string} command */
function block(name, command) {
  const code = h('pre', { tabindex: 0, 'aria-label': `Command line for ${name}` }, command);
  const button = h(
    'button',
    {
      type: 'button',
      onclick: async () => setText(button, (await copy(code)) ? 'Copied' : 'Select and copy it'),
    },
    'Copy',
  );
  return h(
    'section',
    { class: 'command' },
    h('div', { class: 'head' }, h('h3', {}, name), button),
    code,
  );
}

/** @param {string} vm @param {string} socket */
export function showCommandLine(vm, socket) {
  showText(
    `Start ${vm}`,
    h(
      'p',
      {},
      'The guest’s memory must be shared, since the target reads and writes it. The disk appears as an NVMe device.',
    ),
    block('QEMU', qemuCommand(socket)),
    block('Cloud Hypervisor', cloudHypervisorCommand(socket)),
  );
}
