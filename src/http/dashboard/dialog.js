/** Dialogs with a form: made from a list of fields, closed when what they ask for is done, and showing where it happened what went wrong. */

import { h, setAttribute, setText } from './dom.js';
import { FieldError } from './format.js';

/**
 * @typedef {Record<string, string>} Values of the fields by name; of a group of boxes JSON of those that are ticked
 */

/**
 * @typedef {object} Field
 * @property {string} name
 * @property {string} label
 * @property {'text' | 'password' | 'number' | 'select' | 'checkbox' | 'boxes'} [type] default: text
 * @property {string} [value] at first; 'on' ticks a box
 * @property {string} [hint]
 * @property {string} [placeholder]
 * @property {boolean} [optional]
 * @property {readonly { value: string, label: string }[]} [options] of a select, or a group of boxes
 * @property {string} [empty] instead of boxes, if there are none
 * @property {(values: Values) => boolean} [when] whether it is asked for
 * @property {readonly string[]} [keys] of the parameters that the target may complain about
 */

/**
 * @typedef {object} DialogOptions
 * @property {string} title
 * @property {string} [text]
 * @property {readonly Field[]} [fields]
 * @property {string} submit label of the button
 * @property {boolean} [danger]
 * @property {string} [confirm] what has to be typed before the button works
 * @property {(values: Values) => Promise<unknown>} run rejects with an Error that is shown
 */

/** @typedef {ReturnType<typeof makeField> & { field: Field }} MadeField */

let dialogs = 0;

/** @param {Field} field @param {string} id @param {() => void} changed */
function makeInput(field, id, changed) {
  const { name, type = 'text', value, options = [] } = field;
  const common = { id, name, oninput: changed, 'aria-describedby': `${id}-hint` };
  if (type === 'select') {
    const select = h(
      'select',
      common,
      ...options.map((o) => h('option', { value: o.value }, o.label)),
    );
    if (value !== undefined) select.value = value;
    return select;
  }
  const input = h('input', {
    ...common,
    type: type === 'checkbox' || type === 'password' ? type : 'text',
    inputmode: type === 'number' ? 'numeric' : undefined,
    placeholder: field.placeholder,
    autocomplete: 'off',
    autocapitalize: 'off',
    spellcheck: 'false',
  });
  if (type === 'checkbox') input.checked = value === 'on';
  else input.value = value ?? '';
  return input;
}

/** @param {Field} field @param {string} id @param {() => void} changed */
function makeField(field, id, changed) {
  const hint = h('span', { class: 'hint', id: `${id}-hint` }, field.hint ?? '');
  const problem = h('span', { class: 'problem', id: `${id}-problem` });
  if (field.type === 'boxes') {
    const boxes = (field.options ?? []).map(({ value, label }) => ({
      value,
      input: h('input', { type: 'checkbox', name: field.name, value }),
      label,
    }));
    const choices = boxes.map(({ input, label }) =>
      h('label', { class: 'box' }, input, ` ${label}`),
    );
    if (choices.length === 0) choices.push(h('label', { class: 'muted' }, field.empty ?? ''));
    return {
      element: h(
        'fieldset',
        { class: 'field' },
        h('legend', {}, field.label),
        ...choices,
        hint,
        problem,
      ),
      problem,
      input: boxes[0]?.input,
      value: () =>
        JSON.stringify(boxes.filter(({ input }) => input.checked).map((box) => box.value)),
    };
  }
  const input = makeInput(field, id, changed);
  const label = h(
    'label',
    { for: id },
    field.label,
    field.optional ? h('span', { class: 'muted' }, ' (optional)') : undefined,
  );
  const box = field.type === 'checkbox';
  return {
    element: h(
      'div',
      { class: box ? 'field inline' : 'field' },
      ...(box ? [input, label] : [label, input]),
      hint,
      problem,
    ),
    problem,
    input,
    value: () =>
      input instanceof HTMLInputElement && input.type === 'checkbox'
        ? input.checked
          ? 'on'
          : ''
        : input.value.trim(),
  };
}

/**
 * Shows a dialog. Resolves when it is closed: with true if what it asked for was done.
 *
 * @param {DialogOptions} options
 * @returns {Promise<boolean>}
 */
export function showDialog(options) {
  const id = `dialog${dialogs++}`;
  /** @type {MadeField[]} */
  const fields = (options.fields ?? []).map((field, i) => ({
    field,
    ...makeField(field, `${id}-${i}`, () => arrange()),
  }));
  const confirm = h('input', {
    id: `${id}-confirm`,
    type: 'text',
    autocomplete: 'off',
    spellcheck: 'false',
    oninput: () => arrange(),
  });
  const failure = h('p', { class: 'failure', role: 'alert' });
  const submit = h(
    'button',
    { type: 'submit', class: options.danger ? 'primary danger' : 'primary' },
    options.submit,
  );
  const cancel = h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel');
  const form = h(
    'form',
    { novalidate: true, onsubmit: (/** @type {Event} */ event) => void send(event) },
    h('h2', { id: `${id}-title` }, options.title),
    options.text === undefined ? undefined : h('p', {}, options.text),
    ...fields.map(({ element }) => element),
    options.confirm === undefined
      ? undefined
      : h(
          'div',
          { class: 'field' },
          h('label', { for: confirm.id }, 'Type ', h('strong', {}, options.confirm), ' to confirm'),
          confirm,
        ),
    failure,
    h('div', { class: 'buttons' }, cancel, submit),
  );
  const dialog = h('dialog', { 'aria-labelledby': `${id}-title` }, form);
  let done = false;
  let busy = false;

  /** @returns {Values} */
  const values = () => Object.fromEntries(fields.map(({ field, value }) => [field.name, value()]));

  function arrange() {
    const now = values();
    for (const { field, element } of fields) element.hidden = !(field.when?.(now) ?? true);
    submit.disabled =
      busy || (options.confirm !== undefined && confirm.value.trim() !== options.confirm.trim());
  }

  /** @param {Event} event */
  async function send(event) {
    event.preventDefault();
    if (submit.disabled) return;
    show(undefined, '');
    const missing = fields.find(
      ({ field, element, value }) =>
        !element.hidden &&
        !field.optional &&
        field.type !== 'checkbox' &&
        field.type !== 'boxes' &&
        value() === '',
    );
    if (missing !== undefined) {
      show(missing, 'This is needed.');
      return;
    }
    busy = true;
    arrange();
    try {
      await options.run(values());
      done = true;
      dialog.close();
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      show(fieldOf(error), message);
    } finally {
      busy = false;
      arrange();
    }
  }

  /** The field that an error is about: it says so, or names the parameter or what was typed. @param {unknown} error */
  function fieldOf(error) {
    const message = String(error);
    const key = error instanceof FieldError ? error.field : /key '([^']+)'/.exec(message)?.[1];
    const shown = fields.filter(({ element }) => !element.hidden);
    return (
      shown.find(
        ({ field }) => key !== undefined && (field.name === key || field.keys?.includes(key)),
      ) ??
      shown.find(
        ({ field, value }) =>
          field.type === undefined && value().length > 2 && message.includes(value()),
      )
    );
  }

  /** @param {MadeField | undefined} where @param {string} message */
  function show(where, message) {
    for (const field of fields) {
      const here = field.field === where?.field;
      setText(field.problem, here ? message : '');
      setAttribute(field.element, 'data-bad', here);
      if (field.input !== undefined)
        setAttribute(field.input, 'aria-invalid', here ? 'true' : undefined);
    }
    setText(failure, where === undefined ? message : '');
    where?.input?.focus();
  }

  arrange();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(done);
    });
    document.body.append(dialog);
    dialog.showModal();
    const first = fields.find(
      ({ element, input }) => !element.hidden && input !== undefined,
    )?.input;
    (options.confirm === undefined ? first : confirm)?.focus();
  });
}

/**
 * Shows something to read, or to copy.
 *
 * @param {string} title
 * @param {...Node} content
 */
export function showText(title, ...content) {
  const id = `dialog${dialogs++}`;
  const close = h(
    'button',
    { type: 'button', class: 'primary', onclick: () => dialog.close() },
    'Close',
  );
  const dialog = h(
    'dialog',
    { 'aria-labelledby': id, onclose: () => dialog.remove() },
    h('h2', { id }, title),
    ...content,
    h('div', { class: 'buttons' }, close),
  );
  document.body.append(dialog);
  dialog.showModal();
  close.focus();
}
