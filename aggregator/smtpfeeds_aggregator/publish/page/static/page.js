"use strict";
// The search of this page. A classic script: it works from a web server and from a file alike,
// asks nobody outside, and loads the index only when somebody searches.
(function () {
  var SHOWN = 100;
  var input = document.getElementById("q");
  var index = null;
  var loading = false;

  freshness();
  if (input === null) return;
  input.addEventListener("focus", load);
  input.addEventListener("input", function () { load(); search(); });
  document.getElementById("search").addEventListener("submit", function (event) {
    event.preventDefault();
    location.hash = input.value ? "q=" + encodeURIComponent(input.value) : "";
  });
  window.addEventListener("hashchange", followFragment);
  followFragment();

  function freshness() {
    var generated = Number(document.body.dataset.generated);
    var expires = Number(document.body.dataset.expires);
    var minutes = Math.round((Date.now() / 1000 - generated) / 60);
    if (minutes >= 0 && minutes < 100000) {
      document.getElementById("age").textContent = " (" + (minutes < 120 ? minutes + " minutes" : Math.round(minutes / 60) + " hours") + " ago)";
    }
    document.getElementById("stale").hidden = Date.now() / 1000 <= expires;
  }

  function followFragment() {
    var fragment = location.hash.slice(1);
    var value = fragment.slice(fragment.indexOf("=") + 1);
    try { value = decodeURIComponent(value); } catch (error) { return; }
    if (fragment.indexOf("q=") === 0 || fragment.indexOf("ip=") === 0) {
      input.value = value;
      load();
      search();
      document.getElementById("search-title").scrollIntoView();
    }
  }

  function load() {
    if (loading) return;
    loading = true;
    say("Loading the index …");
    var script = document.createElement("script");
    script.src = "search-data.js";
    script.onerror = function () { loading = false; say("The index could not be loaded. Try again, or use a file below."); };
    document.body.appendChild(script);
  }

  // Called by search-data.js.
  window.smtpfeedsIndex = function (data) {
    index = data;
    ["v4", "asn", "greet", "data", "first"].forEach(function (name) { index[name] = new Uint32Array(octets(data[name]).buffer); });
    ["why", "actor"].forEach(function (name) { index[name] = new Uint16Array(octets(data[name]).buffer); });
    ["cls", "marks", "sensors", "targets", "hits"].forEach(function (name) { index[name] = octets(data[name]); });
    index.v6 = octets(data.v6);
    index.v4count = index.v4.length;
    index.count = index.cls.length;
    index.v6text = null;
    index.lowNames = data.names.map(function (name) { return name.toLowerCase(); });
    index.lowActors = data.actors.map(function (name) { return name.toLowerCase(); });
    say("");
    search();
  };

  function octets(text) {
    var raw = atob(text);
    var bytes = new Uint8Array(raw.length);
    for (var i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
    return bytes;
  }

  function say(text) { document.getElementById("answer").textContent = text; }

  function search() {
    if (index === null) return;
    var words = input.value.trim().toLowerCase().replace(/\bas\s+(?=\d)/g, "as").split(/\s+/).filter(Boolean);
    var results = document.getElementById("results");
    document.getElementById("card").hidden = true;
    if (words.length === 0) { results.hidden = true; say(""); return; }
    var began = performance.now();
    var tests = words.map(function (word) { return testOf(plainly(word)); });
    var unclear = tests.indexOf(null);
    if (unclear >= 0) {
      results.hidden = true;
      say("“" + words[unclear] + "” is not an address, a prefix or a range of addresses.");
      return;
    }
    var found = [];
    var total = 0;
    for (var i = 0; i < index.count; i++) {
      var all = true;
      for (var t = 0; t < tests.length && all; t++) all = tests[t](i);
      if (all && total++ < SHOWN) found.push(i);
    }
    document.body.dataset.answered = (performance.now() - began).toFixed(1);
    show(found, total, words);
  }

  // An address as it is, of one that a report has made harmless or put into a URL.
  function plainly(word) {
    return word
      .replace(/\[(\.|dot)\]|\((\.|dot)\)/g, ".").replace(/\[:\]/g, ":")
      .replace(/^h(?:tt|xx)ps?:\/\//, "").replace(/^\[(.*)\]$/, "$1").replace(/\/$/, "")
      .replace(/^::ffff:(?=\d+\.)/, "");
  }

  // What a word asks for, as a test of one entry; null: it looks like an address and is none.
  function testOf(word) {
    var ends = word.split("-");
    if (ends.length === 2 && isAddress(ends[0]) && isAddress(ends[1])) return rangeTest(ends[0], ends[1]);
    if (/^[\d.]+(\/|$)/.test(word) && word.indexOf(".") >= 0) return v4Test(word);
    if (/^[\da-f:]*:[\da-f:]*(\/|$)/.test(word)) return v6Test(word);
    var match = /^(?:asn?)?(\d{1,10})$/.exec(word);
    var asn = match ? Number(match[1]) : -1;
    if (match && match[1] !== word) return function (i) { return index.asns[index.asn[i]] === asn; };
    var names = index.lowNames.map(function (name) { return name.indexOf(word) >= 0; });
    var actors = index.lowActors.map(function (name) { return name.indexOf(word) >= 0; });
    var classes = index.classes.map(function (name) { return name.indexOf(word) >= 0; });
    var exact = index.classes.indexOf(word);
    if (exact >= 0) return function (i) { return index.cls[i] === exact; };
    return function (i) { return classes[index.cls[i]] || names[index.asn[i]] || index.asns[index.asn[i]] === asn || (index.actor[i] && actors[index.actor[i]]); };
  }

  function isAddress(text) { return quad(text.split(".")) !== null || groupsOf(text) !== null; }

  function rangeTest(first, last) {
    var low = quad(first.split(".")), high = quad(last.split("."));
    if (low !== null && high !== null) return function (i) { return i < index.v4count && index.v4[i] >= low && index.v4[i] <= high; };
    var from = groupsOf(first), to = groupsOf(last);
    if (from === null || to === null) return null;
    return function (i) { return i >= index.v4count && order(i - index.v4count, from) >= 0 && order(i - index.v4count, to) <= 0; };
  }

  function v4Test(word) {
    var slash = word.split("/");
    var parts = slash[0].split(".");
    var low = quad(parts), high;
    if (slash.length > 1) {
      if (low === null || slash.length > 2 || !/^\d+$/.test(slash[1]) || Number(slash[1]) > 32) return null;
      var size = Math.pow(2, 32 - Number(slash[1]));
      low = Math.floor(low / size) * size;
      high = low + size - 1;
      return function (i) { return i < index.v4count && index.v4[i] >= low && index.v4[i] <= high; };
    }
    if (low !== null) return function (i) { return i < index.v4count && index.v4[i] === low; };
    var known = parts.slice(0, -1);
    var last = parts[parts.length - 1];
    low = quad(known.concat(["0", "0", "0", "0"]).slice(0, 4));
    if (parts.length > 4 || low === null || Number(last) > 255) return null;
    var span = Math.pow(256, 4 - known.length);
    high = low + span - 1;
    return function (i) {
      if (i >= index.v4count || index.v4[i] < low || index.v4[i] > high) return false;
      return last === "" || String(Math.floor((index.v4[i] - low) / (span / 256))).indexOf(last) === 0;
    };
  }

  // An IPv4 address as a number, of its four parts; null if it is none.
  function quad(parts) {
    var good = parts.length === 4 && parts.every(function (part) { return /^\d{1,3}$/.test(part) && Number(part) < 256; });
    return good ? ((Number(parts[0]) * 256 + Number(parts[1])) * 256 + Number(parts[2])) * 256 + Number(parts[3]) : null;
  }

  function v6Test(word) {
    if (index.v6text === null) {
      index.v6text = [];
      for (var n = 0; n * 16 < index.v6.length; n++) index.v6text.push(v6Text(n));
    }
    var slash = word.split("/");
    var groups = groupsOf(slash[0]);
    if (slash.length > 1) {
      var bits = Number(slash[1]);
      if (groups === null || slash.length > 2 || !/^\d+$/.test(slash[1]) || bits > 128) return null;
      return function (i) { return i >= index.v4count && sameBits(i - index.v4count, groups, bits); };
    }
    if (groups !== null && word.slice(-2) !== "::") return function (i) { return i >= index.v4count && sameBits(i - index.v4count, groups, 128); };
    // A beginning: whole groups, and then the first digits of one.
    var parts = word.split(":"), last = parts.pop().replace(/^0+(?=.)/, "");
    var known = parts.map(function (part) { return parseInt(part, 16); });
    var begins = known.length < 8 && !known.some(isNaN);
    if (groups === null && !begins && word !== ":") return null;
    var short = word.replace(/(^|:)0+(?=[\da-f])/g, "$1");
    return function (i) {
      var n = i - index.v4count;
      if (n < 0) return false;
      if (index.v6text[n].indexOf(short) === 0) return true;
      return begins && known.every(function (value, g) { return groupOf(n, g) === value; }) && groupOf(n, known.length).toString(16).indexOf(last) === 0;
    };
  }

  function groupOf(n, g) { return index.v6[n * 16 + g * 2] * 256 + index.v6[n * 16 + g * 2 + 1]; }

  // Whether an address comes before (below 0) or after (above 0) another.
  function order(n, groups) {
    for (var g = 0; g < 8; g++) if (groupOf(n, g) !== groups[g]) return groupOf(n, g) - groups[g];
    return 0;
  }

  // The eight groups of an IPv6 address; null if it is none.
  function groupsOf(text) {
    var halves = text.split("::");
    var head = halves[0] ? halves[0].split(":") : [];
    var tail = halves.length > 1 && halves[1] ? halves[1].split(":") : [];
    var missing = 8 - head.length - tail.length;
    if (halves.length > 2 || missing < 0 || (halves.length === 1 && missing > 0)) return null;
    var parts = head.concat(new Array(missing).fill("0"), tail);
    if (!parts.every(function (part) { return /^[\da-f]{1,4}$/.test(part); })) return null;
    return parts.map(function (part) { return parseInt(part, 16); });
  }

  function sameBits(n, groups, bits) {
    for (var g = 0; g < 8 && bits > 0; g++, bits -= 16) {
      var value = groupOf(n, g);
      var shift = Math.max(0, 16 - bits);
      if (value >> shift !== groups[g] >> shift) return false;
    }
    return true;
  }

  // RFC 5952: the longest run of zero groups, of two or more, is written as "::".
  function v6Text(n) {
    var groups = [];
    for (var g = 0; g < 8; g++) groups.push(groupOf(n, g).toString(16));
    var best = -1, length = 1;
    for (var i = 0; i < 8; i++) {
      var j = i;
      while (j < 8 && groups[j] === "0") j++;
      if (j - i > length) { best = i; length = j - i; }
      if (j > i) i = j;
    }
    return best < 0 ? groups.join(":") : groups.slice(0, best).join(":") + "::" + groups.slice(best + length).join(":");
  }

  function addressOf(i) {
    if (i >= index.v4count) { return index.v6text ? index.v6text[i - index.v4count] : v6Text(i - index.v4count); }
    var value = index.v4[i];
    return [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255].join(".");
  }

  function show(found, total, words) {
    var rows = document.getElementById("rows");
    var fresh = document.createDocumentFragment();
    if (total > 1) found.forEach(function (i) {
      var row = element("tr");
      var head = element("th");
      row.setAttribute("role", "row");
      head.setAttribute("role", "rowheader");
      head.scope = "row";
      head.appendChild(linkTo(i));
      row.append(head, cell(tag(index.classes[index.cls[i]])), cell(feedsOf(i)), cell(time(Math.max(index.greet[i], index.data[i]))), cell(week(i)), cell(originOf(i)));
      fresh.appendChild(row);
    });
    rows.replaceChildren(fresh);
    document.getElementById("results").hidden = total < 2;
    if (total === 0) say("Nothing in the feeds matches “" + words.join(" ") + "”. That says that no sensor met it in seven days, not that it is harmless.");
    else say(total === 1 ? "1 address" : total.toLocaleString("en") + " addresses" + (total > SHOWN ? ", the first " + SHOWN + " are shown" : ""));
    if (total === 1) card(found[0]);
  }

  function card(i) {
    var box = document.getElementById("card");
    var list = element("ul");
    index.whys[index.why[i]].forEach(function (code) {
      var item = element("li");
      item.append(element("code", code), " " + (index.reasons[code.split(":")[0]] || ""));
      list.appendChild(item);
    });
    var facts = element("dl");
    fact(facts, "Class", index.classes[index.cls[i]]);
    fact(facts, "Origin", originOf(i));
    fact(facts, "Last greet", time(index.greet[i]));
    fact(facts, "Last DATA", index.data[i] ? time(index.data[i]) : "none in seven days");
    fact(facts, "First seen", time(index.first[i]));
    fact(facts, "Days of the past seven", week(i));
    fact(facts, "Sensors, at least", String(index.steps[index.sensors[i]]));
    fact(facts, "Sensor addresses, at least", String(index.steps[index.targets[i]]));
    fact(facts, "Events, at least", String(index.steps[index.hits[i]]));
    if (index.actor[i]) fact(facts, "On a list of scanners", index.actors[index.actor[i]]);
    var title = element("h3");
    title.appendChild(linkTo(i));
    box.replaceChildren(title, facts, element("h3", "Why this class"), list);
    box.hidden = false;
  }

  function fact(list, name, value) {
    var pair = element("div");
    var detail = element("dd");
    detail.append(value);
    pair.append(element("dt", name), detail);
    list.appendChild(pair);
  }

  function element(name, text) {
    var made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // The link under which an address stays reachable.
  function linkTo(i) {
    var link = element("a", addressOf(i));
    link.href = "#ip=" + encodeURIComponent(addressOf(i));
    return link;
  }

  function cell(content) {
    var made = element("td");
    made.setAttribute("role", "cell");
    made.append(content);
    return made;
  }

  function tag(text) { var made = element("span", text); made.className = "tag"; return made; }
  function originOf(i) {
    var asn = index.asns[index.asn[i]];
    return asn ? "AS" + asn + " " + index.names[index.asn[i]] : "none is known";
  }
  function feedsOf(i) { return [index.greet[i] ? "greet" : "", index.data[i] ? "data" : ""].filter(Boolean).join(", "); }
  function time(seconds) { return seconds ? new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ") : "–"; }

  // Seven marks, today's last; the words are for readers that do not see them.
  function week(i) {
    var made = element("span");
    var seen = 0;
    made.className = "week";
    made.setAttribute("role", "img");
    for (var back = 6; back >= 0; back--) {
      var mark = element("i");
      if (index.marks[i] >> back & 1) { mark.className = "on"; seen++; }
      made.appendChild(mark);
    }
    made.setAttribute("aria-label", "seen on " + seen + " of the past 7 days");
    return made;
  }
})();
