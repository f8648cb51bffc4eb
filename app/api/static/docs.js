// In a file of its own, because the page's Content-Security-Policy allows no inline script.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
