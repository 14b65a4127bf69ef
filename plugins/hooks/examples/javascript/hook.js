// A hook that takes links out of answers, except to known hosts, and refuses requests with too many of them.
//
// Its configuration: `allow`, a list of hosts; `replacement`, what stands in a link's place; `max_input_links`.

import { get } from 'pajamas:hook/config@0.1.0';
import { write } from 'pajamas:hook/log@0.1.0';
import { LinkFilter, count } from './links.js';

// The filter of each answer. It may be global: the host makes one instance of a hook for each request.
const filters = new Map();
let settings;

// Read at the first call, not at the top: that part of the module runs once, when the component is built.
function configuration() {
    if (settings) return settings;
    const { allow = [], replacement = '[link removed]', max_input_links: maxInputLinks = 20 } = JSON.parse(get());
    if (!Array.isArray(allow) || !allow.every((host) => typeof host === 'string' && host)) {
        throw '`allow` must be a list of hosts';
    }
    if (typeof replacement !== 'string') throw '`replacement` must be a text';
    if (!Number.isInteger(maxInputLinks) || maxInputLinks < 0) throw '`max_input_links` must be a number from 0';
    settings = { allow: allow.map((host) => host.toLowerCase()), replacement, maxInputLinks };
    return settings;
}

export const info = {
    describe() {
        const { allow } = configuration();
        write('debug', `links to ${allow.length} hosts are allowed`);
        return { name: 'link-filter', version: '0.1.0', summary: 'Takes links out of answers, except to known hosts.' };
    },
};

export const text = {
    input(context, messages) {
        const { maxInputLinks } = configuration();
        const links = messages.reduce((sum, message) => sum + count(message.content), 0);
        if (links <= maxInputLinks) return { tag: 'pass' };
        write('info', `refused a request to ${context.task} with ${links} links`);
        return { tag: 'reject', val: `this request has ${links} links, and ${maxInputLinks} are allowed` };
    },

    output(context, answer, piece, last) {
        const { allow, replacement } = configuration();
        if (!filters.has(answer)) filters.set(answer, new LinkFilter(allow, replacement));
        const released = filters.get(answer).feed(piece, last);
        return released === piece ? { tag: 'pass' } : { tag: 'change', val: released };
    },
};
