// What the client finds out about echo, in rooms that are made up: node echo.mjs MODULE.
//
// Writes {case: {echo, none, unknown}}: how often each verdict was reached. The random numbers are the same each time.

const { EchoMeter } = await import(process.argv[2]);

const LEVELS = 600; // 24 s
const ROOMS = 50;
const FLOOR = 0.0003;

let seed = 1;
const random = () => (seed = (seed * 1664525 + 1013904223) % 2 ** 32) / 2 ** 32;
const upTo = (from, to) => from + Math.floor(random() * (to - from));

// Levels of somebody who speaks: syllables of 120 to 320 ms, and pauses.
function speech(level = 0.1) {
  const levels = [];
  while (levels.length < LEVELS) {
    if (random() < 0.2) levels.push(...new Array(upTo(3, 15)).fill(FLOOR));
    const [length, loud] = [upTo(3, 9), level * (0.3 + random())];
    for (let i = 0; i < length; i++) levels.push(loud * Math.sin((Math.PI * (i + 0.5)) / length) + FLOOR);
  }
  return levels.slice(0, LEVELS);
}

const during = (levels, isOn) => levels.map((level, i) => (isOn(i) ? level : 0));
const echo = (levels, delay, gain) => levels.map((_, i) => (i < delay ? 0 : levels[i - delay] * gain));

// Echo through a device that stutters: each second or two it comes later, or sooner.
function stutter(levels, gain) {
  let delay = 4;
  return levels.map((_, i) => {
    if (random() < 1 / 40) delay = upTo(0, 10);
    return i < delay ? 0 : levels[i - delay] * gain;
  });
}

const sum = (a, b) => a.map((level, i) => Math.hypot(level, b[i]));
const room = (heard, noise = 0.0006) => heard.map((level) => Math.hypot(level, noise * (0.7 + 0.6 * random())));
const silence = () => new Array(LEVELS).fill(0);

const cases = {
  "echo at once": () => [0, 1],
  "echo through Bluetooth": () => [13, 0.2],
  "echo from a quiet loudspeaker": () => [3, 0.1],
};
for (const [name, given] of Object.entries(cases)) {
  cases[name] = () => {
    const agent = speech();
    return [agent, room(echo(agent, ...given()))];
  };
}
Object.assign(cases, {
  "echo, and each answer is interrupted": () => {
    const agent = during(speech(), (i) => i % 75 < 25);
    return [agent, room(echo(agent, 5, 0.3))];
  },
  "echo that stutters": () => {
    const agent = speech();
    return [agent, room(stutter(agent, 0.5))];
  },
  "echo, and the user speaks too": () => {
    const agent = speech();
    return [agent, room(sum(echo(agent, 4, 0.5), during(speech(0.05), (i) => i % 100 < 15)))];
  },
  "nothing": () => [speech(), room(silence())],
  "noise": () => [speech(), room(silence(), 0.02)],
  "a canceller that learns": () => {
    const agent = speech();
    return [agent, room(echo(agent, 4, 1).map((level, i) => level * Math.exp(-i / 8)))];
  },
  "a user who does not stop": () => [speech(), room(speech())],
  "a user who takes turns": () => [during(speech(), (i) => i % 100 < 60), room(during(speech(), (i) => i % 100 >= 55))],
  "a user who agrees": () => [during(speech(), (i) => i % 100 < 60), room(during(speech(), (i) => i % 100 > 5 && i % 100 < 40))],
});

const found = {};
for (const [name, make] of Object.entries(cases)) {
  const counts = (found[name] = { echo: 0, none: 0, unknown: 0 });
  for (let i = 0; i < ROOMS; i++) {
    const [played, heard] = make();
    const meter = new EchoMeter();
    played.forEach((level, at) => meter.add(level, heard[at]));
    counts[meter.verdict]++;
  }
}
console.log(JSON.stringify(found));
