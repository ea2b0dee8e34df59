-- When a person last did something in a workspace. Kept in shared memory, at most one write a second a workspace.
local dict = ngx.shared.activity

local _M = {}

local KEPT_S = 7 * 86400
local last = {}
local second = 0

function _M.touch(workspace)
    local now = ngx.time()
    if now ~= second then
        last, second = {}, now
    end
    if not last[workspace] then
        last[workspace] = true
        dict:set(workspace, ngx.now(), KEPT_S)
    end
end

-- A person who opens or reloads a page. Frames inside pages navigate by themselves, scripts poll with `fetch`, and
-- monitors ask with neither header: none of them is a person.
function _M.is_navigation()
    local mode = ngx.var.http_sec_fetch_mode
    if mode then
        return mode == "navigate" and ngx.var.http_sec_fetch_dest == "document"
    end
    local accept = ngx.var.http_accept
    return accept ~= nil and string.find(accept, "text/html", 1, true) ~= nil
end

function _M.all()
    local found = {}
    for _, workspace in ipairs(dict:get_keys(0)) do
        found[workspace] = dict:get(workspace)
    end
    return found
end

return _M
