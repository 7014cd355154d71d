import { Client } from "@floorcast/client";
import { FloorcastProvider } from "@floorcast/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Desk } from "./Desk";
import "./desk.css";

const { VITE_URL = "http://127.0.0.1:8000", VITE_TOKEN } = import.meta.env;
const params = new URLSearchParams(location.search);
const client = new Client(params.get("url") ?? VITE_URL, { token: params.get("token") ?? VITE_TOKEN });
createRoot(document.getElementById("root") as HTMLElement).render(
  <StrictMode>
    <FloorcastProvider client={client}>
      <Desk />
    </FloorcastProvider>
  </StrictMode>,
);
