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
    var words = input.value.trim().toLowerCase().split(/\s+/).filter(Boolean);
    var results = document.getElementById("results");
    document.getElementById("card").hidden = true;
    if (words.length === 0) { results.hidden = true; say(""); return; }
    var began = performance.now();
    var tests = words.map(testOf);
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

  // What a word asks for, as a test of one entry.
  function testOf(word) {
    var match = /^as(\d{1,10})$/.exec(word);
    if (match) { var asn = Number(match[1]); return function (i) { return index.asns[index.asn[i]] === asn; }; }
    if (/^[\d.]+(\/\d{1,2})?$/.test(word) && word.indexOf(".") >= 0) return v4Test(word);
    if (word.indexOf(":") >= 0) return v6Test(word);
    var names = index.lowNames.map(function (name) { return name.indexOf(word) >= 0; });
    var actors = index.lowActors.map(function (name) { return name.indexOf(word) >= 0; });
    var classes = index.classes.map(function (name) { return name.indexOf(word) >= 0; });
    var exact = index.classes.indexOf(word);
    if (exact >= 0) return function (i) { return index.cls[i] === exact; };
    return function (i) { return classes[index.cls[i]] || names[index.asn[i]] || (index.actor[i] && actors[index.actor[i]]); };
  }

  function v4Test(word) {
    var slash = word.split("/");
    var parts = slash[0].split(".");
    var whole = parts.length === 4 && parts[3] !== "";
    var low, high;
    if (slash.length === 2 && whole) {
      var bits = Math.min(32, Number(slash[1]));
      var size = Math.pow(2, 32 - bits);
      low = Math.floor(quad(parts) / size) * size;
      high = low + size - 1;
      return function (i) { return i < index.v4count && index.v4[i] >= low && index.v4[i] <= high; };
    }
    if (whole) { low = quad(parts); return function (i) { return i < index.v4count && index.v4[i] === low; }; }
    var known = parts.slice(0, -1);
    var last = parts[parts.length - 1];
    var span = Math.pow(256, 4 - known.length);
    low = quad(known.concat(["0", "0", "0", "0"]).slice(0, 4));
    high = low + span - 1;
    return function (i) {
      if (i >= index.v4count || index.v4[i] < low || index.v4[i] > high) return false;
      return last === "" || String(Math.floor((index.v4[i] - low) / (span / 256))).indexOf(last) === 0;
    };
  }

  function quad(parts) { return ((Number(parts[0]) * 256 + Number(parts[1])) * 256 + Number(parts[2])) * 256 + Number(parts[3]); }

  function v6Test(word) {
    if (index.v6text === null) {
      index.v6text = [];
      for (var n = 0; n * 16 < index.v6.length; n++) index.v6text.push(v6Text(n));
    }
    var slash = word.split("/");
    if (slash.length === 2 && slash[1] !== "") {
      var prefix = groupsOf(slash[0]);
      var bits = Math.min(128, Number(slash[1]));
      return function (i) { return i >= index.v4count && prefix !== null && sameBits(i - index.v4count, prefix, bits); };
    }
    return function (i) { return i >= index.v4count && index.v6text[i - index.v4count].indexOf(slash[0]) === 0; };
  }

  function groupsOf(text) {
    var halves = text.split("::");
    var head = halves[0] ? halves[0].split(":") : [];
    var tail = halves.length > 1 && halves[1] ? halves[1].split(":") : [];
    if (halves.length > 2 || head.length + tail.length > 8) return null;
    var groups = head.concat(new Array(8 - head.length - tail.length).fill("0"), tail).map(function (part) { return parseInt(part, 16); });
    return groups.some(isNaN) ? null : groups;
  }

  function sameBits(n, groups, bits) {
    for (var g = 0; g < 8 && bits > 0; g++, bits -= 16) {
      var value = index.v6[n * 16 + g * 2] * 256 + index.v6[n * 16 + g * 2 + 1];
      var shift = Math.max(0, 16 - bits);
      if (value >> shift !== groups[g] >> shift) return false;
    }
    return true;
  }

  // RFC 5952: the longest run of zero groups, of two or more, is written as "::".
  function v6Text(n) {
    var groups = [];
    for (var g = 0; g < 8; g++) groups.push((index.v6[n * 16 + g * 2] * 256 + index.v6[n * 16 + g * 2 + 1]).toString(16));
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
    found.forEach(function (i) {
      var row = element("tr");
      var head = element("th");
      head.scope = "row";
      var link = element("a", addressOf(i));
      link.href = "#ip=" + encodeURIComponent(addressOf(i));
      head.appendChild(link);
      row.append(head, cell(tag(index.classes[index.cls[i]])), cell(feedsOf(i)), cell(time(Math.max(index.greet[i], index.data[i]))), cell(week(i)), cell(asnText(i), "num"), cell(index.names[index.asn[i]]));
      fresh.appendChild(row);
    });
    rows.replaceChildren(fresh);
    document.getElementById("results").hidden = total === 0;
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
    fact(facts, "Origin", asnText(i) === "NA" ? "not announced" : "AS" + asnText(i) + " " + index.names[index.asn[i]]);
    fact(facts, "Last greet", time(index.greet[i]));
    fact(facts, "Last DATA", index.data[i] ? time(index.data[i]) : "none in seven days");
    fact(facts, "First seen", time(index.first[i]));
    fact(facts, "Days of the past seven", week(i));
    fact(facts, "Sensors, at least", String(index.steps[index.sensors[i]]));
    fact(facts, "Sensor addresses, at least", String(index.steps[index.targets[i]]));
    fact(facts, "Events, at least", String(index.steps[index.hits[i]]));
    if (index.actor[i]) fact(facts, "On a list of scanners", index.actors[index.actor[i]]);
    box.replaceChildren(element("h3", addressOf(i)), facts, element("h3", "Why this class"), list);
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

  function cell(content, name) {
    var made = element("td");
    if (name) made.className = name;
    made.append(content);
    return made;
  }

  function tag(text) { var made = element("span", text); made.className = "tag"; return made; }
  function asnText(i) { return String(index.asns[index.asn[i]] || "NA"); }
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
