import assert from 'node:assert/strict';
import { test } from 'node:test';

import { LinkFilter, count } from './links.js';

const ALLOW = ['example.org'];
const CASES = [
    ['See https://example.org/a?b=c.', 'See https://example.org/a?b=c.'],
    ['See https://docs.example.org. Bye', 'See https://docs.example.org. Bye'],
    ['See https://example.org:8080/', 'See https://example.org:8080/'],
    ['See HTTPS://Evil.test/x?y, now', 'See [-] now'],
    ['[a](http://evil.test/x) b', '[a]([-]) b'],
    ['https://notexample.org https://example.org.evil.test', '[-] [-]'],
    ['https://example.org@evil.test/', '[-]'],
    ['https://evil.test\\@example.org/', '[-]'],
    ['https://example.org/?to=https://evil.test/x', 'https://example.org/?to=[-]'],
    ['http://', '[-]'],
    ['http:/ https', 'http:/ https'],
    ['', ''],
];

function run(pieces) {
    const filter = new LinkFilter(ALLOW, '[-]');
    return pieces.map((piece, index) => filter.feed(piece, index === pieces.length - 1)).join('');
}

test('links to other hosts are taken out, wherever a stream is cut', () => {
    for (const [text, expected] of CASES) {
        for (let first = 0; first <= text.length; first++) {
            for (let second = first; second <= text.length; second++) {
                const pieces = [text.slice(0, first), text.slice(first, second), text.slice(second), ''];
                assert.equal(run(pieces), expected, JSON.stringify(pieces));
            }
        }
    }
});

test('only what may become a link is held back, and not without end', () => {
    const filter = new LinkFilter(ALLOW, '[-]');
    assert.equal(filter.feed('plain text, http', false), 'plain text, ');
    assert.equal(filter.feed('s is fine', false), 'https is fine');
    assert.equal(filter.feed('http://' + 'a'.repeat(300), false), '[-]');
});

test('links are counted', () => {
    assert.equal(count('http://a HTTPS://b ftp://c'), 2);
});
