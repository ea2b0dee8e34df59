-- The pages that the gateway itself answers with: read once at start, filled with escaped text.
local settings = require("settings")

local _M = {}

local NAMES = { "unknown", "stopped", "starting", "unavailable", "forbidden", "unreadable" }
local pages = {}

local function read(name)
    local file = assert(io.open(settings.pages .. "/" .. name .. ".html"))
    local text = file:read("*a")
    file:close()
    return text
end

function _M.load()
    local before, after = string.match(read("frame"), "^(.*){{{body}}}(.*)$")
    for _, name in ipairs(NAMES) do
        pages[name] = before .. read(name) .. after
    end
end

local ESCAPED = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

local function escape(text)
    return (string.gsub(text, "[&<>\"']", ESCAPED))
end

-- The page with each `{{name}}` replaced by the escaped value of that name.
function _M.render(name, values)
    return (string.gsub(pages[name], "{{(%w+)}}", function(key)
        return escape(values[key] or "")
    end))
end

return _M
