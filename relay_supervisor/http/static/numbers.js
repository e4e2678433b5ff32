// What the page keeps of the browser's statistics (RTCInboundRtpStreamStats) of a track.

export function videoNumbers(entry) {
  return {
    videoBytes: entry.bytesReceived ?? 0,
    framesDecoded: entry.framesDecoded ?? 0,
    framesDropped: entry.framesDropped ?? 0,
    keyFramesDecoded: entry.keyFramesDecoded ?? 0,
    fps: entry.framesPerSecond ?? 0,
    freezeCount: entry.freezeCount ?? 0,
    totalFreezesDuration: entry.totalFreezesDuration ?? 0,
    jitter: entry.jitter ?? 0,
    nackCount: entry.nackCount ?? 0,
    pliCount: entry.pliCount ?? 0,
    width: entry.frameWidth ?? 0,
    height: entry.frameHeight ?? 0,
    jitterBufferDelay: entry.jitterBufferDelay ?? 0,
    jitterBufferEmittedCount: entry.jitterBufferEmittedCount ?? 0,
  };
}

export function audioNumbers(entry) {
  return {
    totalAudioEnergy: entry.totalAudioEnergy ?? 0,
    audioLevel: entry.audioLevel ?? 0,
    audioPacketsReceived: entry.packetsReceived ?? 0,
    concealedSamples: entry.concealedSamples ?? 0,
    silentConcealedSamples: entry.silentConcealedSamples ?? 0,
    concealmentEvents: entry.concealmentEvents ?? 0,
    totalSamplesReceived: entry.totalSamplesReceived ?? 0,
  };
}
