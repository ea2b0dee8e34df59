-- Go's patterns for leading elements of a module path, as `names.matches_any` reads them.
local find, gmatch, gsub = string.find, string.gmatch, string.gsub

local _M = {}

-- The pattern as data, to be matched often. What has a character class is left to Python: it covers nobody knows what.
local function compiled(pattern)
    local elements = {}
    for element in gmatch(gsub(pattern, "/+$", "") .. "/", "([^/]*)/") do
        local text = gsub(element, "[%^%$%(%)%%%.%]%+%-]", "%%%0")
        elements[#elements + 1] = "^" .. gsub(gsub(text, "%*+", ".*"), "%?", ".") .. "$"
    end
    elements.unknown = find(pattern, "[", 1, true) ~= nil
    return elements
end

function _M.compile(patterns)
    local all = {}
    for i, pattern in ipairs(patterns) do
        all[i] = compiled(pattern)
    end
    return all
end

local function covers(pattern, elements)
    if #pattern > #elements then
        return false
    end
    for i = 1, #pattern do
        if not find(elements[i], pattern[i]) then
            return false
        end
    end
    return true
end

-- Whether one of the compiled patterns covers the module; nil when that is not known here.
function _M.cover(patterns, module)
    local elements, unknown = {}, false
    for element in gmatch(module, "[^/]+") do
        elements[#elements + 1] = element
    end
    for i = 1, #patterns do
        if patterns[i].unknown then
            unknown = true
        elseif covers(patterns[i], elements) then
            return true
        end
    end
    if unknown then
        return nil
    end
    return false
end

return _M
