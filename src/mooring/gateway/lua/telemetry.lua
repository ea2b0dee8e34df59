-- Everything counted until now, for the agent.
local activity = require("activity")
local cjson = require("cjson.safe")
local metrics = require("metrics")

local dict = ngx.shared.metrics

local _M = {}

function _M.read()
    local routes, refused, open = {}, {}, {}
    for _, key in ipairs(dict:get_keys(0)) do
        local kind, name = string.match(key, "^(%S+) (.+)$")
        local value = kind and dict:get(key)
        if value and kind == "refused" then
            refused[name] = value
        elseif value and kind == "open" then
            open[#open + 1] = cjson.decode(value)
        elseif value and kind ~= "gone" then
            routes[#routes + 1] = { name, metrics.read(value) }
        end
    end
    setmetatable(routes, cjson.array_mt)
    setmetatable(open, cjson.array_mt)
    return { routes = routes, refused = refused, open = open, activity = activity.all() }
end

return _M
