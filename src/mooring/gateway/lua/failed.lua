-- Answers when nginx could not get an answer from a backend.
local answers = require("answers")
local handover = require("handover")
local request = require("request")

local _M = {}

function _M.answer(listener)
    local status, upstream = ngx.status, ngx.var.upstream_status
    -- The first backend took too long, and nobody else was asked: that is what happened.
    if status == 502 and upstream and string.find(upstream, "504", 1, true) then
        status = 504
    end
    local before = handover.kept()
    if before then
        handover.over(before)
    end
    -- By the state the request is counted at its end, and nginx has cleared it.
    request.identify(listener)
    return answers.failed(status)
end

return _M
