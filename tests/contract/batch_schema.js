// Which batches a schema accepts, by JavaScript's own regular expressions. Only the keywords that the
// schema uses: another one is an error, so that none is passed over.
"use strict";

const known = new Set([
    "$defs", "$ref", "additionalProperties", "default", "description", "enum", "format", "items",
    "maxItems", "maxLength", "maxProperties", "maximum", "minimum", "pattern", "properties",
    "propertyNames", "required", "title", "type",
]);

const types = {
    array: Array.isArray,
    integer: Number.isInteger,
    object: (value) => typeof value === "object" && value !== null && !Array.isArray(value),
    string: (value) => typeof value === "string",
};

function accepts(schema, value, root) {
    for (const keyword of Object.keys(schema)) {
        if (!known.has(keyword)) throw new Error(`unknown keyword ${keyword}`);
    }
    if (schema.$ref) return accepts(root.$defs[schema.$ref.split("/").pop()], value, root);
    if (schema.type && !types[schema.type](value)) return false;
    if (schema.enum && !schema.enum.includes(value)) return false;
    if (typeof value === "string") {
        if ([...value].length > (schema.maxLength ?? Infinity)) return false;
        if (schema.pattern && !new RegExp(schema.pattern, "u").test(value)) return false;
    }
    if (typeof value === "number") {
        if (value < (schema.minimum ?? -Infinity) || value > (schema.maximum ?? Infinity)) return false;
    }
    if (Array.isArray(value)) {
        return value.length <= (schema.maxItems ?? Infinity) &&
            value.every((item) => accepts(schema.items, item, root));
    }
    if (types.object(value)) {
        const names = Object.keys(value);
        const propertyOf = (name) => schema.properties?.[name] ?? schema.additionalProperties ?? {};
        return names.length <= (schema.maxProperties ?? Infinity) &&
            (schema.required ?? []).every((name) => names.includes(name)) &&
            names.every((name) => accepts(schema.propertyNames ?? {}, name, root)) &&
            names.every((name) => accepts(propertyOf(name), value[name], root));
    }
    return true;
}

// JSON in, JSON out: a list with true for each batch that is accepted.
function verdicts(text) {
    const { schema, batches } = JSON.parse(text);
    return JSON.stringify(batches.map((batch) => accepts(schema, batch, schema)));
}
